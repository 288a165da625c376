-- Cancel those of some runs of one shard that are not running.
-- Locks:  the runs, NO KEY; locked ones are skipped, and asked to be cancelled afterwards.
-- Index:  the primary key.
WITH chosen AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
      AND CASE WHEN d.status IN ('queued', 'sleeping', 'waiting_event') THEN true END
    ORDER BY d.run_id
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'cancelled',
    error_text = 'cancelled by user',
    next_wake_at = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM chosen))
RETURNING r.run_id
