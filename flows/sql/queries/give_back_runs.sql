-- Give back runs of one shard that were claimed and never begun, to where they were in the queue.
-- One that was taken for the first time has not been taken: it has its own deadline again, later by
-- so many seconds than the one it got with the claim, and none if they are infinitely many.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key, by ANY of an array whose length the planner cannot see. It counts on the
--         thousand rows of generate_series and joins by a hash, neither the whole shard nor each row
--         with each. CASE hides the status, of which it knows what was true a minute ago.
UPDATE flows.runs AS r
SET status = 'queued',
    worker_id = NULL,
    started_at = CASE WHEN u.later_s IS NULL THEN r.started_at END,
    deadline = CASE
        WHEN u.later_s IS NULL THEN r.deadline
        WHEN u.later_s < 'infinity' THEN (
            r.deadline AT TIME ZONE 'UTC' + u.later_s * interval '1 second'
        ) AT TIME ZONE 'UTC'
    END,
    updated_at = statement_timestamp()
FROM ROWS FROM (
    unnest(%(run_ids)s::uuid[], %(claims)s::bigint[], %(later_s)s::float8[]),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, later_s, number)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND r.run_id = u.run_id
  AND u.claim = CASE WHEN r.status = 'running' THEN r.claim END
