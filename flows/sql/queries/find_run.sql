-- Read which of some shards has a run of one id: as a rule one of them.
-- Locks:  nothing.
-- Index:  the primary key: one entry of each shard.
SELECT workflow_name_shard
FROM flows.runs
WHERE workflow_name_shard = ANY(%(shards)s)
  AND run_id = %(run_id)s
ORDER BY workflow_name_shard
