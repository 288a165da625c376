-- Read the shards in which a worker holds runs.
-- Locks:  nothing.
-- Index:  runs_running_idx.
SELECT DISTINCT workflow_name_shard
FROM flows.runs
WHERE status = 'running'
  AND worker_id = %(worker_id)s
