-- Read the steps of one run, whether they returned or not. The time is that of the last try, up to
-- when the memo was made; before that was told from when it was written, up to that.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT
    step_key AS key, status, attempts,
    coalesce(started_at, created_at) AS started_at,
    extract(epoch FROM
        CASE WHEN created_at >= started_at THEN created_at ELSE updated_at END
        - coalesce(started_at, created_at)
    )::float8 AS seconds,
    error_text AS error,
    input_json, input_bytes, codec AS input_codec,
    output_json, output_bytes, codec AS output_codec,
    claim, place
FROM flows.steps
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
ORDER BY claim, place, 4, 1
