-- Read the rule of a schedule that is about to be changed, and the time.
-- Locks:  its row.
-- Index:  the primary key.
SELECT
    cron_expr, timezone, enabled, next_run_at,
    coalesce(%(now)s::timestamptz, statement_timestamp())
FROM flows.schedules
WHERE schedule_id = %(schedule_id)s
FOR NO KEY UPDATE
