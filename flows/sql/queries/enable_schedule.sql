-- Fire a schedule again, from its next time on.
-- Locks:  its row.
-- Index:  the primary key.
UPDATE flows.schedules
SET
    enabled = true,
    error_text = NULL,
    next_run_at = %(next_run_at)s,
    updated_at = clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now) AS clock
WHERE schedule_id = %(schedule_id)s
