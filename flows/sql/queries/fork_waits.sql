-- Give a run the sleeps and waits that another one of its shard had got through before a step. Where a
-- place was not counted the times decide.
-- Locks:  the new memos; their run for the foreign key, KEY SHARE.
-- Index:  the primary keys.
INSERT INTO flows.waits (
    workflow_name_shard, run_id, wait_key, wait_type, event_name, wake_at, payload_json,
    payload_bytes, codec, place, satisfied_at, created_at, updated_at
)
SELECT
    w.workflow_name_shard, %(new_id)s, w.wait_key, w.wait_type, w.event_name, w.wake_at,
    w.payload_json, w.payload_bytes, w.codec, w.place, coalesce(w.satisfied_at, w.wake_at),
    w.created_at, w.updated_at
FROM flows.waits AS w
JOIN flows.steps AS f
  ON f.workflow_name_shard = %(shard)s
 AND f.run_id = %(run_id)s
 AND f.step_key = %(step_key)s
WHERE w.workflow_name_shard = %(shard)s
  AND w.run_id = %(run_id)s
  AND coalesce(w.satisfied_at, w.wake_at) IS NOT NULL
  AND coalesce(w.place < f.place, w.created_at <= f.updated_at)
RETURNING wait_key
