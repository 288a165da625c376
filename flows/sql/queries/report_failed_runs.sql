-- Count the runs of some shards that have failed since a moment, by workflow.
-- Locks:  nothing.
-- Index:  the primary key, by shard: reads all their runs. Asked once, at the end of a drain.
SELECT workflow_name, count(*)
FROM flows.runs
WHERE workflow_name_shard = ANY(%(shards)s)
  AND status = 'failed'
  AND updated_at >= %(since)s
GROUP BY workflow_name
