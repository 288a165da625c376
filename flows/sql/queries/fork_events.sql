-- Give a run the events that were published for another one of its shard before a step had ended.
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
      SELECT f.updated_at
      FROM flows.steps AS f
      WHERE f.workflow_name_shard = %(shard)s
        AND f.run_id = %(run_id)s
        AND f.step_key = %(step_key)s
  )
RETURNING event_name
