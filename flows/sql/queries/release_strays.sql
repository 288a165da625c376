-- Give back the runs of one shard that a worker holds and does not know of: their claim was
-- committed, and the connection lost before its answer came. Attempts do not count.
-- Locks:  the runs, NO KEY; locked ones are skipped.
-- Index:  runs_running_idx, then the primary key, by ANY: a join is planned over the whole shard
--         where the table was never analyzed.
WITH stray AS (
    SELECT run_id
    FROM flows.runs
    WHERE workflow_name_shard = %(shard)s
      AND status = 'running'
      AND worker_id = %(worker_id)s
      AND run_id <> ALL(%(known)s::uuid[])
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'queued',
    worker_id = NULL,
    updated_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM stray))
