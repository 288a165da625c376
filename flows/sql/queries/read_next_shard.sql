-- Read the first shard after %(after)s that has runs; null if there is none. Asked again with its
-- answer it names them all, in as many looks as there are.
-- Locks:  nothing.
-- Index:  the primary key: one entry.
SELECT min(workflow_name_shard)
FROM flows.runs
WHERE workflow_name_shard > %(after)s
