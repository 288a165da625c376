-- Never executed, only explained: the planner says how many runs of one shard have a status.
-- Locks:  nothing.
-- Index:  none.
SELECT 1
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND status = %(status)s
