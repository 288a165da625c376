-- Record that runs of one shard sleep, wait for an event, or go back to the queue.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see. It counts on the
--         thousand rows of generate_series and joins by a hash, neither the whole shard nor each row
--         with each. CASE hides the status, of which it knows what was true a minute ago.
UPDATE flows.runs AS r
SET status = u.status,
    next_wake_at = (
        statement_timestamp() AT TIME ZONE 'UTC' + u.wake_in_s * interval '1 second'
    ) AT TIME ZONE 'UTC',
    worker_id = NULL,
    is_suspect = r.is_suspect AND u.status = 'queued',
    updated_at = statement_timestamp()
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(statuses)s::text[], %(wake_in_s)s::float8[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, status, wake_in_s, number)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
