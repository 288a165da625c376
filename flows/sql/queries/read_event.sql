-- Read the payload of an event of one run.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT payload_json::text, payload_bytes, codec
FROM flows.events
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND event_name = %(event_name)s
