-- Read the random values of one run. A uint64 is stored in a signed column.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT rand_key AS key, kind, created_at, value_text, value_bigint, claim, place
FROM flows.random
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
ORDER BY claim, place, 3, 1
