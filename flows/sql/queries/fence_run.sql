-- Lock a run for the transaction of the attempt that holds its claim; no row if it is stale.
-- Locks:  the run, NO KEY, until the transaction ends.
-- Index:  the primary key.
SELECT 1
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND claim = %(claim)s
  AND status = 'running'
FOR NO KEY UPDATE
