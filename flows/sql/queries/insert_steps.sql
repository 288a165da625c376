-- Write what steps of one shard's runs returned in their first try, where no memo can be there: it
-- saves a look and a mark for each. If one is there all the same, nothing is written and it fails.
-- The join with the run is the fence. A memo is created when its step ends.
-- Locks:  the memos; their runs for the foreign key, KEY SHARE.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see. It counts
--         on the thousand rows of generate_series and joins by a hash, not each row with each.
INSERT INTO flows.steps (
    workflow_name_shard, run_id, step_key, status,
    input_json, input_bytes, output_json, output_bytes, codec, input_digest,
    attempts, claim, place, started_at, created_at, updated_at
)
SELECT
    r.workflow_name_shard, r.run_id, u.step_key, 'completed',
    u.input_json, u.input_bytes, u.output_json, u.output_bytes, u.codec, u.input_digest,
    1, u.claim, u.place,
    statement_timestamp() - (u.age + u.seconds) * interval '1 second',
    statement_timestamp() - u.age * interval '1 second', statement_timestamp()
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(keys)s::text[],
        %(input_json)s::jsonb[], %(input_bytes)s::bytea[],
        %(output_json)s::jsonb[], %(output_bytes)s::bytea[],
        %(codecs)s::text[], %(input_digests)s::bytea[],
        %(seconds)s::float8[], %(ages)s::float8[], %(places)s::bigint[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (
    run_id, claim, step_key, input_json, input_bytes, output_json, output_bytes,
    codec, input_digest, seconds, age, place, number
)
JOIN flows.runs AS r
  ON r.workflow_name_shard = %(shard)s
 AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
 AND r.run_id = u.run_id
 AND r.claim = u.claim
