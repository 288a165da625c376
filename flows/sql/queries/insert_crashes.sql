-- Keep what was charged to runs of one shard.
-- Locks:  the new rows; their runs for the foreign key, KEY SHARE.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see. It counts
--         on the thousand rows of generate_series and joins by a hash, not each row with each.
INSERT INTO flows.crashes (
    workflow_name_shard, run_id, claim, cause, step_key, worker_id, host, pid, created_at
)
SELECT
    r.workflow_name_shard, r.run_id, u.claim, %(cause)s, u.step_key, %(worker_id)s, %(host)s,
    %(pid)s, statement_timestamp()
FROM ROWS FROM (
    unnest(%(run_ids)s::uuid[], %(claims)s::bigint[], %(step_keys)s::text[]),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, step_key, number)
JOIN flows.runs AS r
  ON r.workflow_name_shard = %(shard)s
 AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
 AND r.run_id = u.run_id
 AND r.claim = u.claim
ON CONFLICT (workflow_name_shard, run_id, claim) DO NOTHING
