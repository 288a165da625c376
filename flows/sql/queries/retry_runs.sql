-- Queue those of some runs of one shard again that failed or were cancelled, behind what is due by now.
-- Their memos stay. Attempts, crashes and time limits begin anew; one that has crashed its process is
-- executed alone first.
-- Locks:  the runs, NO KEY; locked ones are skipped.
-- Index:  the primary key.
WITH chosen AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
      AND CASE WHEN d.status IN ('failed', 'cancelled') THEN true END
    ORDER BY d.run_id
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'queued',
    attempts = 0,
    crashes = 0,
    is_suspect = r.crashes > 0,
    error_text = NULL,
    next_wake_at = statement_timestamp(),
    deadline = NULL,
    started_at = NULL,
    finished_at = NULL,
    updated_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM chosen))
RETURNING r.run_id
