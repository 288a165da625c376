-- Read the random values of such a run.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT rand_key, kind, value_text, value_bigint, place
FROM flows.random
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
