-- Read the memos of runs of one shard that this worker has just claimed, and whether somebody has
-- asked for them to be cancelled; nothing of a run whose memos are heavy.
-- Locks:  nothing.
-- Index:  the primary keys; the runs' by ANY of an array whose length the planner cannot see.
SELECT
    r.run_id::text,
    CASE WHEN 65536 < (
        SELECT sum(
            32 + coalesce(octet_length(m.binary), 0) + CASE
                WHEN pg_column_size(m.document) BETWEEN 1000 AND 16384
                    THEN octet_length(m.document::text)
                ELSE coalesce(pg_column_size(m.document), 0)
                    * CASE WHEN pg_column_size(m.document) > 16384 THEN 5 ELSE 1 END
            END
        )
        FROM (
            SELECT s.output_json AS document, s.output_bytes AS binary
            FROM flows.steps AS s
            WHERE s.workflow_name_shard = %(shard)s
              AND s.run_id = r.run_id
            UNION ALL
            SELECT w.payload_json, w.payload_bytes
            FROM flows.waits AS w
            WHERE w.workflow_name_shard = %(shard)s
              AND w.run_id = r.run_id
            UNION ALL
            SELECT e.payload_json, e.payload_bytes
            FROM flows.events AS e
            WHERE e.workflow_name_shard = %(shard)s
              AND e.run_id = r.run_id
            UNION ALL
            SELECT NULL, NULL
            FROM flows.random AS x
            WHERE x.workflow_name_shard = %(shard)s
              AND x.run_id = r.run_id
        ) AS m
    ) THEN '' ELSE json_build_object(
        'steps', (
            SELECT json_agg(json_build_array(
                s.step_key, s.output_json, encode(s.output_bytes, 'base64'), s.codec,
                encode(s.input_digest, 'hex'), s.place
            ))
            FROM flows.steps AS s
            WHERE s.workflow_name_shard = %(shard)s
              AND s.run_id = r.run_id
              AND s.status = 'completed'
        ),
        'waits', (
            SELECT json_agg(json_build_array(
                w.wait_key,
                w.wait_type,
                w.satisfied_at IS NOT NULL,
                extract(epoch FROM
                    w.wake_at - coalesce(%(now)s::timestamptz, statement_timestamp())
                ),
                w.payload_json, encode(w.payload_bytes, 'base64'), w.codec,
                w.event_name, w.place
            ))
            FROM flows.waits AS w
            WHERE w.workflow_name_shard = %(shard)s
              AND w.run_id = r.run_id
        ),
        'events', (
            SELECT json_agg(json_build_array(
                e.event_name, e.payload_json, encode(e.payload_bytes, 'base64'), e.codec
            ))
            FROM flows.events AS e
            WHERE e.workflow_name_shard = %(shard)s
              AND e.run_id = r.run_id
        ),
        'random', (
            SELECT json_agg(json_build_array(
                x.rand_key, x.kind, x.value_text, x.value_bigint, x.place
            ))
            FROM flows.random AS x
            WHERE x.workflow_name_shard = %(shard)s
              AND x.run_id = r.run_id
        ),
        'is_cancelled', EXISTS (
            SELECT 1
            FROM flows.cancellations AS c
            WHERE c.workflow_name_shard = %(shard)s
              AND c.run_id = r.run_id
        )
    )::text END
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
