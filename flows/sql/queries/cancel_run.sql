-- Cancel one run that is not running. A run seen running is not waited for.
-- Locks:  the run, NO KEY, only where it can be cancelled.
-- Index:  the primary key.
UPDATE flows.runs
SET status = 'cancelled',
    error_text = 'cancelled by user',
    next_wake_at = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND status IN ('queued', 'sleeping', 'waiting_event')
RETURNING 1
