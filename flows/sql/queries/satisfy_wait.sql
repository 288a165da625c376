-- Hand the payload of an event to the wait for it, as the reference package's workers expect.
-- Locks:  the wait.
-- Index:  the primary key.
UPDATE flows.waits
SET payload_json = %(payload_json)s::jsonb,
    payload_bytes = %(payload_bytes)s,
    codec = %(codec)s,
    satisfied_at = statement_timestamp(),
    updated_at = statement_timestamp()
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND wait_type = 'event'
  AND event_name = %(event_name)s
  AND satisfied_at IS NULL
