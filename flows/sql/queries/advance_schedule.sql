-- Say when a schedule is due again, and which run it began last.
-- Locks:  its row, which its transaction holds.
-- Index:  the primary key.
UPDATE flows.schedules
SET
    next_run_at = %(next_run_at)s,
    last_run_at = coalesce(%(last_run_at)s, last_run_at),
    last_shard = %(last_shard)s,
    last_run_id = %(last_run_id)s,
    updated_at = %(now)s
WHERE schedule_id = %(schedule_id)s
