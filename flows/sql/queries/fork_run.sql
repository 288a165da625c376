-- Begin a run with the workflow and the input of another one of its shard, if that has the step. It
-- seems to have been touched since it was begun: a claim reads no memos of runs that are fresh.
-- Locks:  its new row.
-- Index:  the primary keys.
INSERT INTO flows.runs (
    workflow_name_shard, run_id, workflow_name, status, input_json, input_bytes, codec, priority, tags,
    created_at, updated_at
)
SELECT
    r.workflow_name_shard, %(new_id)s, r.workflow_name, 'queued', r.input_json, r.input_bytes,
    r.codec, r.priority, r.tags, statement_timestamp(),
    statement_timestamp() + interval '1 microsecond'
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
  AND EXISTS (
      SELECT 1
      FROM flows.steps AS s
      WHERE s.workflow_name_shard = %(shard)s
        AND s.run_id = %(run_id)s
        AND s.step_key = %(step_key)s
  )
RETURNING 1
