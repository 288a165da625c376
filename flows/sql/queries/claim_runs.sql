-- Claim up to %(limit)s due runs of a shard for a worker, with their inputs where those are light: of
-- a higher priority first, then the oldest due. A priority that nobody can have been given is none.
-- One look for each priority, in a nested loop, which keeps their order, passes over what is not due.
-- None due before %(from_s)s, if given. What never ran is told by its times: Go workers count no claims.
-- Locks:  the claimed runs, NO KEY (a publisher's foreign-key check passes); locked ones are skipped.
-- Index:  runs_urgent_idx, runs_claimable_idx, then the primary key, by ANY of an array whose length
--         the planner cannot see: for a tenth of the queue it would rather walk the whole table.
WITH urgent AS (
    SELECT u.run_id, u.is_fresh, u.is_first, u.deadline
    FROM generate_series(
        least(9, (
            SELECT p.priority
            FROM flows.runs AS p
            WHERE p.workflow_name_shard = %(shard)s
              AND p.status IN ('queued', 'sleeping')
              AND p.priority BETWEEN 1 AND 9
            ORDER BY p.priority DESC
            LIMIT 1
        )), 1, -1
    ) AS level
    CROSS JOIN LATERAL (
        SELECT
            d.run_id, d.claim = 0 AND d.updated_at = d.created_at AS is_fresh,
            d.started_at IS NULL AS is_first, d.deadline
        FROM flows.runs AS d
        WHERE d.workflow_name_shard = %(shard)s
          AND d.status IN ('queued', 'sleeping')
          AND d.priority BETWEEN 1 AND 9
          AND d.priority = level
          AND coalesce(d.next_wake_at, d.created_at)
              <= coalesce(%(now)s::timestamptz, statement_timestamp())
        ORDER BY coalesce(d.next_wake_at, d.created_at)
        LIMIT %(limit)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS u
    LIMIT %(limit)s
),
ordinary AS (
    SELECT
        d.run_id, d.claim = 0 AND d.updated_at = d.created_at AS is_fresh,
        d.started_at IS NULL AS is_first, d.deadline
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.status IN ('queued', 'sleeping')
      AND d.priority NOT BETWEEN 1 AND 9
      AND coalesce(d.next_wake_at, d.created_at)
          >= coalesce(to_timestamp(%(from_s)s::float8), '-infinity')
      AND coalesce(d.next_wake_at, d.created_at)
          <= coalesce(%(now)s::timestamptz, statement_timestamp())
    ORDER BY coalesce(d.next_wake_at, d.created_at)
    LIMIT %(limit)s - (SELECT count(*) FROM urgent)
    FOR NO KEY UPDATE SKIP LOCKED
),
due AS (
    SELECT run_id, is_fresh, is_first, deadline FROM urgent
    UNION ALL
    SELECT run_id, is_fresh, is_first, deadline FROM ordinary
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
      AND r.run_id = ANY(ARRAY(SELECT run_id FROM due))
      AND r.run_id = due.run_id
    RETURNING
        r.run_id, r.claim, r.attempts, r.is_suspect, r.input_json, r.input_bytes, r.codec,
        r.deadline, r.trace_context, coalesce(r.next_wake_at, r.created_at) AS due_at, r.priority,
        due.is_fresh, due.is_first, due.deadline AS own_deadline
),
weighed AS MATERIALIZED (
    SELECT
        claimed.*,
        65536 < coalesce(octet_length(claimed.input_bytes), 0) + CASE
            WHEN pg_column_size(claimed.input_json) BETWEEN 1000 AND 16384
                THEN octet_length(claimed.input_json::text)
            ELSE coalesce(pg_column_size(claimed.input_json), 0)
                * CASE WHEN pg_column_size(claimed.input_json) > 16384 THEN 5 ELSE 1 END
        END AS is_heavy
    FROM claimed
)
SELECT
    weighed.run_id::text,
    weighed.claim,
    weighed.attempts,
    weighed.is_suspect,
    CASE WHEN NOT weighed.is_heavy THEN weighed.input_json END,
    CASE WHEN NOT weighed.is_heavy THEN weighed.input_bytes END,
    weighed.codec,
    extract(epoch FROM
        weighed.deadline - coalesce(%(now)s::timestamptz, statement_timestamp())
    )::float8,
    weighed.is_fresh,
    weighed.is_heavy,
    weighed.trace_context,
    CASE WHEN weighed.is_first THEN coalesce(
        extract(epoch FROM weighed.own_deadline - weighed.deadline)::float8, 'infinity'
    ) END,
    CASE
        WHEN weighed.priority NOT BETWEEN 1 AND 9 THEN extract(epoch FROM weighed.due_at)::float8
    END
FROM weighed
ORDER BY greatest(0, weighed.priority) DESC, weighed.due_at
