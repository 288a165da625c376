-- Record that running runs of one shard were cancelled. A run whose claim is stale is left alone.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see: for a long one
--         it would rather walk the whole shard. Statistics of a queue are always stale: a plain
--         status = 'running' is estimated at one row, and joined row by row with a thousand others.
UPDATE flows.runs AS r
SET status = 'cancelled',
    error_text = 'cancelled by user',
    next_wake_at = NULL,
    worker_id = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
FROM unnest(%(run_ids)s::uuid[], %(claims)s::bigint[]) AS u (run_id, claim)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
