-- Publish an event of one run: the last publish wins. No row if there is no such run, where the
-- foreign key would spoil the caller's transaction.
-- Locks:  the event; its run for the foreign key, KEY SHARE.
-- Index:  the primary keys.
INSERT INTO flows.events (
    workflow_name_shard, run_id, event_name, payload_json, payload_bytes, codec, created_at
)
SELECT
    r.workflow_name_shard, r.run_id, %(event_name)s, %(payload_json)s::jsonb, %(payload_bytes)s,
    %(codec)s, statement_timestamp()
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
ON CONFLICT (workflow_name_shard, run_id, event_name) DO UPDATE
SET payload_json = EXCLUDED.payload_json,
    payload_bytes = EXCLUDED.payload_bytes,
    codec = EXCLUDED.codec,
    created_at = EXCLUDED.created_at
RETURNING 1
