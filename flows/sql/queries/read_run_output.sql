-- Read the output of one run.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT status, error_text, output_json::text, output_bytes, output_codec
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
