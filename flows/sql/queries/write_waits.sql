-- Write sleeps and waits of one shard's runs, open or satisfied. An open sleep ends when its run
-- wakes, so it takes the instant that yield_runs has just computed in the same transaction; where
-- that found the run released, the wait is dropped too, or the sleep would seem over.
-- Locks:  the waits; their runs for the foreign key, KEY SHARE.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see. It counts
--         on the thousand rows of generate_series and joins by a hash, not each row with each.
INSERT INTO flows.waits AS w (
    workflow_name_shard, run_id, wait_key, wait_type, event_name, wake_at,
    payload_json, payload_bytes, codec, claim, place, satisfied_at, created_at, updated_at
)
SELECT
    r.workflow_name_shard, r.run_id, u.wait_key, u.wait_type, u.event_name,
    CASE WHEN u.wait_type = 'sleep' AND u.is_satisfied = 0 THEN r.next_wake_at END,
    u.payload_json, u.payload_bytes, u.codec, u.claim, u.place,
    CASE WHEN u.is_satisfied = 1 THEN statement_timestamp() END,
    statement_timestamp(), statement_timestamp()
FROM ROWS FROM (
    unnest(
        %(run_ids)s::uuid[], %(claims)s::bigint[], %(keys)s::text[], %(types)s::text[],
        %(event_names)s::text[], %(payload_json)s::jsonb[], %(payload_bytes)s::bytea[],
        %(codecs)s::text[], %(satisfied)s::bigint[], %(places)s::bigint[]
    ),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (
    run_id, claim, wait_key, wait_type, event_name, payload_json, payload_bytes, codec,
    is_satisfied, place, number
)
JOIN flows.runs AS r
  ON r.workflow_name_shard = %(shard)s
 AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
 AND r.run_id = u.run_id
 AND r.claim = u.claim
 AND (u.is_satisfied = 1 OR r.status IN ('sleeping', 'waiting_event'))
ON CONFLICT (workflow_name_shard, run_id, wait_key) DO UPDATE
SET event_name = EXCLUDED.event_name,
    wake_at = coalesce(EXCLUDED.wake_at, w.wake_at),
    payload_json = EXCLUDED.payload_json,
    payload_bytes = EXCLUDED.payload_bytes,
    codec = EXCLUDED.codec,
    claim = EXCLUDED.claim,
    place = EXCLUDED.place,
    satisfied_at = EXCLUDED.satisfied_at,
    updated_at = EXCLUDED.updated_at
WHERE w.claim <= EXCLUDED.claim
