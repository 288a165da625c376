-- Cancel runs of one shard that were asked to be cancelled and are not running: what
-- cancel_requested missed because the request was committed later and its notification was lost.
-- Only requests of the last %(window_s)s seconds are looked at; null looks at all.
-- Locks:  the runs, NO KEY; one that is locked is left to the next sweep.
-- Index:  cancellations_recent_idx, then the primary key; CASE keeps the planner from walking the
--         indexes of a status instead.
WITH requested AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.run_id = ANY(ARRAY(
          SELECT c.run_id
          FROM flows.cancellations AS c
          WHERE c.workflow_name_shard = %(shard)s
            AND c.requested_at >= coalesce(
                statement_timestamp() - %(window_s)s::float8 * interval '1 second', '-infinity'
            )
      ))
      AND CASE WHEN d.status IN ('queued', 'sleeping', 'waiting_event') THEN true END
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
