-- Give a run the random values that another one of its shard had drawn before a step. Where a
-- place was not counted the times decide, and those that were committed together with the step count
-- as before it: they are written after it.
-- Locks:  the new values; their run for the foreign key, KEY SHARE.
-- Index:  the primary keys.
INSERT INTO flows.random (
    workflow_name_shard, run_id, rand_key, kind, value_text, value_bigint, place, created_at
)
SELECT
    x.workflow_name_shard, %(new_id)s, x.rand_key, x.kind, x.value_text, x.value_bigint, x.place,
    x.created_at
FROM flows.random AS x
JOIN flows.steps AS f
  ON f.workflow_name_shard = %(shard)s
 AND f.run_id = %(run_id)s
 AND f.step_key = %(step_key)s
WHERE x.workflow_name_shard = %(shard)s
  AND x.run_id = %(run_id)s
  AND coalesce(x.place < f.place, x.created_at <= f.updated_at OR x.xmin = f.xmin)
RETURNING rand_key
