-- Give the running runs of a stopped worker in one shard back to the queue, but for those that
-- are charged with its death. Attempts do not count.
-- Locks:  the runs, NO KEY; one that its attempt's open transaction holds is skipped and keeps it.
-- Index:  runs_running_idx, then the primary key, by ANY: a join is planned over the whole shard
--         where the table was never analyzed.
WITH held AS (
    SELECT run_id
    FROM flows.runs
    WHERE workflow_name_shard = %(shard)s
      AND status = 'running'
      AND worker_id = %(worker_id)s
      AND run_id <> ALL(%(suspects)s::uuid[])
    ORDER BY run_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'queued',
    worker_id = NULL,
    updated_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM held))
