-- Write random values of one shard's runs, and return whose are written: a value of a stale claim
-- is dropped, and must not be handed out.
-- Locks:  the values; their runs for the foreign key, KEY SHARE.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see. It counts
--         on the thousand rows of generate_series and joins by a hash, not each row with each.
INSERT INTO flows.random AS x (
    workflow_name_shard, run_id, rand_key, kind, value_text, value_bigint, claim, place,
    created_at
)
SELECT
    r.workflow_name_shard, r.run_id, u.rand_key, u.kind, u.value_text, u.value_bigint, u.claim,
    u.place, statement_timestamp()
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(keys)s::text[], %(kinds)s::text[],
        %(texts)s::text[], %(numbers)s::bigint[], %(places)s::bigint[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, rand_key, kind, value_text, value_bigint, place, number)
JOIN flows.runs AS r
  ON r.workflow_name_shard = %(shard)s
 AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
 AND r.run_id = u.run_id
 AND r.claim = u.claim
ON CONFLICT (workflow_name_shard, run_id, rand_key) DO UPDATE
SET kind = EXCLUDED.kind,
    value_text = EXCLUDED.value_text,
    value_bigint = EXCLUDED.value_bigint,
    claim = EXCLUDED.claim,
    place = EXCLUDED.place
WHERE x.claim <= EXCLUDED.claim
RETURNING x.run_id::text
