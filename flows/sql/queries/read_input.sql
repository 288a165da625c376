-- Read the input of a run that is too heavy to come along with its claim, and whether somebody has
-- asked for it to be cancelled.
-- Locks:  nothing.
-- Index:  the primary keys.
SELECT r.input_json::text, r.input_bytes, r.codec, EXISTS (
    SELECT 1
    FROM flows.cancellations AS c
    WHERE c.workflow_name_shard = %(shard)s
      AND c.run_id = %(run_id)s
)
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
