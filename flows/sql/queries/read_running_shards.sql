-- Read the shards in which runs are running.
-- Locks:  nothing.
-- Index:  runs_running_idx.
SELECT DISTINCT workflow_name_shard
FROM flows.runs
WHERE worker_id IS NOT NULL
  AND status = 'running'
