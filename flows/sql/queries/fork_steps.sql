-- Give a run the memos of the steps that another one of its shard had completed before a step. Where a
-- place was not counted the times decide; what one statement has written has one, and its rows mostly
-- stand in the order of the steps.
-- Locks:  the new memos; their run for the foreign key, KEY SHARE.
-- Index:  the primary key.
INSERT INTO flows.steps (
    workflow_name_shard, run_id, step_key, status, input_json, input_bytes, output_json,
    output_bytes, codec, input_digest, attempts, place, started_at, created_at, updated_at
)
SELECT
    s.workflow_name_shard, %(new_id)s, s.step_key, s.status, s.input_json, s.input_bytes,
    s.output_json, s.output_bytes, s.codec, s.input_digest, s.attempts, s.place,
    s.started_at, s.created_at, s.updated_at
FROM flows.steps AS s
JOIN flows.steps AS f
  ON f.workflow_name_shard = %(shard)s
 AND f.run_id = %(run_id)s
 AND f.step_key = %(step_key)s
WHERE s.workflow_name_shard = %(shard)s
  AND s.run_id = %(run_id)s
  AND s.status = 'completed'
  AND coalesce(
      s.place < f.place,
      (s.updated_at, s.created_at, s.ctid) < (f.updated_at, f.created_at, f.ctid)
  )
ORDER BY s.place, s.updated_at, s.created_at, s.ctid
RETURNING step_key
