-- Read the sleeps and waits of such a run, with the seconds that are left of them.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT
    wait_key, wait_type, satisfied_at IS NOT NULL,
    extract(epoch FROM wake_at - statement_timestamp())::float8,
    event_name, place, payload_json::text, payload_bytes, codec
FROM flows.waits
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
