-- Read the greatest run id of one shard, and the time.
-- Locks:  nothing.
-- Index:  the primary key: one entry.
SELECT run_id, statement_timestamp()
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
ORDER BY run_id DESC
LIMIT 1
