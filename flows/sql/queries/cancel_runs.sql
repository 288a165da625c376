-- Record that running runs of one shard were cancelled. A run whose claim is stale is left alone.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see. It counts on the
--         thousand rows of generate_series and joins by a hash, neither the whole shard nor each row
--         with each. CASE hides the status, of which it knows what was true a minute ago.
UPDATE flows.runs AS r
SET status = 'cancelled',
    error_text = 'cancelled by user',
    next_wake_at = NULL,
    worker_id = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
FROM ROWS FROM (
    unnest(%(run_ids)s::uuid[], %(claims)s::bigint[]),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, number)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
