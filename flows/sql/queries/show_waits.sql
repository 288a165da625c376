-- Read the sleeps and waits of one run, open or satisfied.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT
    wait_key AS key, wait_type AS type, event_name,
    created_at AS started_at, wake_at, satisfied_at,
    extract(epoch FROM satisfied_at - created_at)::float8 AS seconds,
    payload_json, payload_bytes, codec AS payload_codec,
    claim, place
FROM flows.waits
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
ORDER BY claim, place, 4, 1
