-- Record failed attempts of runs of one shard: the run fails, or sleeps until its next attempt.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see. It counts on the
--         thousand rows of generate_series and joins by a hash, neither the whole shard nor each row
--         with each. CASE hides the status, of which it knows what was true a minute ago.
UPDATE flows.runs AS r
SET status = CASE WHEN u.retry_in_s IS NULL THEN 'failed' ELSE 'sleeping' END,
    error_text = u.error_text,
    attempts = r.attempts + 1,
    next_wake_at = (
        statement_timestamp() AT TIME ZONE 'UTC' + u.retry_in_s * interval '1 second'
    ) AT TIME ZONE 'UTC',
    worker_id = NULL,
    is_suspect = false,
    updated_at = statement_timestamp(),
    finished_at = (
        statement_timestamp() AT TIME ZONE 'UTC'
        + CASE WHEN u.retry_in_s IS NULL THEN interval '0' END
    ) AT TIME ZONE 'UTC'
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(error_texts)s::text[], %(retry_in_s)s::float8[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, error_text, retry_in_s, number)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
