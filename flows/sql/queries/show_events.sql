-- Read the events published for one run: the last payload of each name.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT
    event_name AS name, created_at AS published_at,
    payload_json, payload_bytes, codec AS payload_codec
FROM flows.events
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
ORDER BY 2, 1
