-- Cancel runs of one shard that were asked to be cancelled while they were running, and have
-- yielded, failed or been released since.
-- Locks:  the runs, NO KEY; one that is locked is being claimed, and its claim reads the request.
-- Index:  the primary key; then requests by theirs, run by run: OFFSET 0 keeps the planner from
--         joining the tables whole, and CASE from walking the indexes of a status instead.
WITH requested AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND CASE WHEN d.status IN ('queued', 'sleeping', 'waiting_event') THEN true END
      AND d.run_id = ANY(%(run_ids)s::uuid[])
      AND EXISTS (
          SELECT 1
          FROM flows.cancellations AS c
          WHERE c.workflow_name_shard = %(shard)s
            AND c.run_id = d.run_id
          OFFSET 0
      )
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'cancelled',
    error_text = 'cancelled by user',
    next_wake_at = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM requested))
