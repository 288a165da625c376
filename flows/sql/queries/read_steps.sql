-- Read what steps of such a run have returned.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT step_key, encode(input_digest, 'hex'), place, output_json::text, output_bytes, codec
FROM flows.steps
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND status = 'completed'
