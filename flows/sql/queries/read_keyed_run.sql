-- Find the run of a workflow that was begun with an idempotency key, in whichever shard.
-- Locks:  nothing.
-- Index:  that of the idempotency keys.
SELECT workflow_name_shard, run_id
FROM flows.runs
WHERE idempotency_key = %(idempotency_key)s
  AND workflow_name = %(workflow_name)s
