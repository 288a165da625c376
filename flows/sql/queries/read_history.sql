-- Read a run with its memos, as a claim would, and with the steps that failed.
-- Locks:  nothing.
-- Index:  the primary keys.
SELECT
    r.status, r.attempts, r.claim, r.error_text,
    r.input_json, r.input_bytes, r.codec,
    r.output_json, r.output_bytes, r.output_codec,
    json_build_object(
        'steps', (
            SELECT json_agg(json_build_array(
                s.step_key, s.output_json, encode(s.output_bytes, 'base64'), s.codec,
                encode(s.input_digest, 'hex'), s.place
            ))
            FROM flows.steps AS s
            WHERE s.workflow_name_shard = %(shard)s
              AND s.run_id = %(run_id)s
              AND s.status = 'completed'
        ),
        'waits', (
            SELECT json_agg(json_build_array(
                w.wait_key, w.wait_type, w.satisfied_at IS NOT NULL,
                extract(epoch FROM w.wake_at - statement_timestamp()),
                w.payload_json, encode(w.payload_bytes, 'base64'), w.codec,
                w.event_name, w.place
            ))
            FROM flows.waits AS w
            WHERE w.workflow_name_shard = %(shard)s
              AND w.run_id = %(run_id)s
        ),
        'events', NULL,
        'random', (
            SELECT json_agg(json_build_array(
                x.rand_key, x.kind, x.value_text, x.value_bigint, x.place
            ))
            FROM flows.random AS x
            WHERE x.workflow_name_shard = %(shard)s
              AND x.run_id = %(run_id)s
        )
    )::text,
    (
        SELECT json_object_agg(s.step_key, s.error_text)
        FROM flows.steps AS s
        WHERE s.workflow_name_shard = %(shard)s
          AND s.run_id = %(run_id)s
          AND s.status <> 'completed'
    )::text
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
