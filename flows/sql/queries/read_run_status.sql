-- Read the state of one run.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT status, error_text, attempts, created_at, updated_at, next_wake_at
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
