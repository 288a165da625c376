-- Read everything about one run but its memos, and the time.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT
    workflow_name, status, attempts, claim AS claims, crashes, priority, is_suspect, error_text AS error,
    created_at, started_at, updated_at, finished_at,
    CASE WHEN status = 'sleeping' THEN next_wake_at END AS next_wake_at, deadline,
    coalesce(tags, '{}') AS tags, idempotency_key,
    (
        SELECT c.requested_at
        FROM flows.cancellations AS c
        WHERE c.workflow_name_shard = %(shard)s
          AND c.run_id = %(run_id)s
    ) AS cancel_requested_at,
    statement_timestamp() AS read_at,
    worker_id,
    input_json, input_bytes, codec AS input_codec, output_json, output_bytes, output_codec
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
