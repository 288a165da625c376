-- Write what steps of one shard's runs returned or failed with. The join with the run is the
-- fence; the claim kept with each memo lets a late write of a stale claim change nothing. A memo is
-- created when its step ends, which may be long before it is written, and in another order.
-- Locks:  the memos; their runs for the foreign key, KEY SHARE.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see. It counts
--         on the thousand rows of generate_series and joins by a hash, not each row with each.
INSERT INTO flows.steps AS s (
    workflow_name_shard, run_id, step_key, status,
    input_json, input_bytes, output_json, output_bytes, codec, input_digest,
    error_text, attempts, claim, place, started_at, created_at, updated_at
)
SELECT
    r.workflow_name_shard, r.run_id, u.step_key, u.status,
    u.input_json, u.input_bytes, u.output_json, u.output_bytes, u.codec, u.input_digest,
    u.error_text, u.attempts, u.claim, u.place,
    statement_timestamp() - (u.age + u.seconds) * interval '1 second',
    statement_timestamp() - u.age * interval '1 second', statement_timestamp()
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(keys)s::text[], %(statuses)s::text[],
        %(input_json)s::jsonb[], %(input_bytes)s::bytea[],
        %(output_json)s::jsonb[], %(output_bytes)s::bytea[],
        %(codecs)s::text[], %(input_digests)s::bytea[],
        %(error_texts)s::text[], %(attempts)s::bigint[], %(seconds)s::float8[],
        %(ages)s::float8[], %(places)s::bigint[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (
    run_id, claim, step_key, status, input_json, input_bytes, output_json, output_bytes,
    codec, input_digest, error_text, attempts, seconds, age, place, number
)
JOIN flows.runs AS r
  ON r.workflow_name_shard = %(shard)s
 AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
 AND r.run_id = u.run_id
 AND r.claim = u.claim
ON CONFLICT (workflow_name_shard, run_id, step_key) DO UPDATE
SET status = EXCLUDED.status,
    input_json = EXCLUDED.input_json,
    input_bytes = EXCLUDED.input_bytes,
    output_json = EXCLUDED.output_json,
    output_bytes = EXCLUDED.output_bytes,
    codec = EXCLUDED.codec,
    input_digest = EXCLUDED.input_digest,
    error_text = EXCLUDED.error_text,
    attempts = EXCLUDED.attempts,
    claim = EXCLUDED.claim,
    place = EXCLUDED.place,
    started_at = EXCLUDED.started_at,
    created_at = EXCLUDED.created_at,
    updated_at = EXCLUDED.updated_at
WHERE s.claim <= EXCLUDED.claim
