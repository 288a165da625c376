-- Record the outputs of completed runs of one shard. A run whose claim is stale is left alone.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see: for a long one
--         it would rather walk the whole shard. Statistics of a queue are always stale: a plain
--         status = 'running' is estimated at one row, and joined row by row with a thousand others.
UPDATE flows.runs AS r
SET status = 'completed',
    output_json = u.output_json,
    output_bytes = u.output_bytes,
    output_codec = u.codec,
    error_text = NULL,
    next_wake_at = NULL,
    worker_id = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
FROM unnest(
    %(run_ids)s::uuid[], %(claims)s::bigint[],
    %(output_json)s::jsonb[], %(output_bytes)s::bytea[], %(codecs)s::text[]
) AS u (run_id, claim, output_json, output_bytes, codec)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
