-- Give a run the events that were published for another one of its shard before a step began, or where
-- its place was not counted, before it was written.
-- Locks:  the new events; their run for the foreign key, KEY SHARE.
-- Index:  the primary keys.
INSERT INTO flows.events (
    workflow_name_shard, run_id, event_name, payload_json, payload_bytes, codec, created_at
)
SELECT
    e.workflow_name_shard, %(new_id)s, e.event_name, e.payload_json, e.payload_bytes, e.codec,
    e.created_at
FROM flows.events AS e
WHERE e.workflow_name_shard = %(shard)s
  AND e.run_id = %(run_id)s
  AND e.created_at <= (
      SELECT CASE WHEN f.place IS NULL THEN f.updated_at ELSE f.started_at END
      FROM flows.steps AS f
      WHERE f.workflow_name_shard = %(shard)s
        AND f.run_id = %(run_id)s
        AND f.step_key = %(step_key)s
  )
RETURNING event_name
