-- Claim up to %(limit)s due runs of one shard for one worker, oldest due time first, with input and
-- memos, if they are light and there are any. One that was executed since this statement began to
-- look is left, because its memos are not seen: its time tells too, because the reference package's
-- workers do not count claims.
-- Locks:  the claimed runs, NO KEY (a publisher's foreign-key check passes); locked ones are skipped.
-- Index:  runs_claimable_idx, then the primary keys.
WITH due AS (
    SELECT
        d.run_id,
        d.claim = 0 AND d.updated_at = d.created_at AS is_fresh,
        65536 < (
            SELECT sum(
                32 + coalesce(octet_length(m.binary), 0) + CASE
                    WHEN pg_column_size(m.document) BETWEEN 1000 AND 16384
                        THEN octet_length(m.document::text)
                    ELSE coalesce(pg_column_size(m.document), 0)
                        * CASE WHEN pg_column_size(m.document) > 16384 THEN 5 ELSE 1 END
                END
            )
            FROM (
                SELECT d.input_json AS document, d.input_bytes AS binary
                UNION ALL
                SELECT s.output_json, s.output_bytes
                FROM flows.steps AS s
                WHERE s.workflow_name_shard = %(shard)s
                  AND s.run_id = d.run_id
                  AND NOT (d.claim = 0 AND d.updated_at = d.created_at)
                UNION ALL
                SELECT w.payload_json, w.payload_bytes
                FROM flows.waits AS w
                WHERE w.workflow_name_shard = %(shard)s
                  AND w.run_id = d.run_id
                  AND NOT (d.claim = 0 AND d.updated_at = d.created_at)
                UNION ALL
                SELECT e.payload_json, e.payload_bytes
                FROM flows.events AS e
                WHERE e.workflow_name_shard = %(shard)s
                  AND e.run_id = d.run_id
                  AND NOT (d.claim = 0 AND d.updated_at = d.created_at)
                UNION ALL
                SELECT NULL, NULL
                FROM flows.random AS x
                WHERE x.workflow_name_shard = %(shard)s
                  AND x.run_id = d.run_id
                  AND NOT (d.claim = 0 AND d.updated_at = d.created_at)
            ) AS m
        ) AS is_heavy
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.status IN ('queued', 'sleeping')
      AND coalesce(d.next_wake_at, d.created_at)
          <= coalesce(%(now)s::timestamptz, statement_timestamp())
      AND (d.claim = 0 AND d.updated_at = d.created_at OR d.claim = (
          SELECT seen.claim
          FROM flows.runs AS seen
          WHERE seen.workflow_name_shard = %(shard)s
            AND seen.run_id = d.run_id
            AND seen.updated_at = d.updated_at
      ))
    ORDER BY coalesce(d.next_wake_at, d.created_at)
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE flows.runs AS r
    SET status = 'running',
        claim = r.claim + 1,
        worker_id = %(worker_id)s,
        started_at = least(r.started_at, statement_timestamp()),
        deadline = least(r.deadline, (
            least(r.started_at, statement_timestamp()) AT TIME ZONE 'UTC'
            + %(run_timeout_s)s::float8 * interval '1 second'
        ) AT TIME ZONE 'UTC'),
        updated_at = statement_timestamp()
    FROM due
    WHERE r.workflow_name_shard = %(shard)s
      AND r.run_id = due.run_id
    RETURNING
        r.run_id, r.claim, r.attempts, r.is_suspect, r.input_json, r.input_bytes, r.codec,
        r.deadline, coalesce(r.next_wake_at, r.created_at) AS due_at, due.is_fresh, due.is_heavy
)
SELECT
    claimed.run_id::text,
    claimed.claim,
    claimed.attempts,
    claimed.is_suspect,
    CASE WHEN NOT claimed.is_heavy THEN claimed.input_json END,
    CASE WHEN NOT claimed.is_heavy THEN claimed.input_bytes END,
    claimed.codec,
    extract(epoch FROM
        claimed.deadline - coalesce(%(now)s::timestamptz, statement_timestamp())
    )::float8,
    CASE WHEN claimed.is_heavy THEN '' WHEN claimed.is_fresh THEN NULL ELSE json_build_object(
        'steps', (
            SELECT json_agg(json_build_array(
                s.step_key, s.output_json, encode(s.output_bytes, 'base64'), s.codec,
                encode(s.input_digest, 'hex')
            ))
            FROM flows.steps AS s
            WHERE s.workflow_name_shard = %(shard)s
              AND s.run_id = claimed.run_id
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
                w.payload_json, encode(w.payload_bytes, 'base64'), w.codec
            ))
            FROM flows.waits AS w
            WHERE w.workflow_name_shard = %(shard)s
              AND w.run_id = claimed.run_id
        ),
        'events', (
            SELECT json_agg(json_build_array(
                e.event_name, e.payload_json, encode(e.payload_bytes, 'base64'), e.codec
            ))
            FROM flows.events AS e
            WHERE e.workflow_name_shard = %(shard)s
              AND e.run_id = claimed.run_id
        ),
        'random', (
            SELECT json_agg(json_build_array(
                x.rand_key, x.kind, x.value_text, x.value_bigint
            ))
            FROM flows.random AS x
            WHERE x.workflow_name_shard = %(shard)s
              AND x.run_id = claimed.run_id
        ),
        'is_cancelled', EXISTS (
            SELECT 1
            FROM flows.cancellations AS c
            WHERE c.workflow_name_shard = %(shard)s
              AND c.run_id = claimed.run_id
        )
    )::text END
FROM claimed
ORDER BY claimed.due_at
