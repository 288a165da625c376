-- Read the events of such a run.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT event_name, payload_json::text, payload_bytes, codec
FROM flows.events
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
