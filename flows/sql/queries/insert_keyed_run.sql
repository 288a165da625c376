-- Enqueue one run as insert_run does, unless its shard has one with its idempotency key.
-- Locks:  its new row. Waits for a transaction that begins a run with the same key.
-- Index:  that of the idempotency keys.
INSERT INTO flows.runs (
    workflow_name_shard, run_id, workflow_name, status, input_json, input_bytes, codec,
    next_wake_at, deadline, tags, priority, trace_context, idempotency_key, created_at, updated_at
)
VALUES (
    %(shard)s, %(run_id)s, %(workflow_name)s,
    CASE
        WHEN %(start_at)s::timestamptz IS NULL AND %(delay_s)s::float8 IS NULL THEN 'queued'
        ELSE 'sleeping'
    END || CASE
        WHEN %(channel)s::text IS NULL THEN ''
        WHEN NOT CASE
                WHEN pg_try_advisory_lock_shared(%(quiet_key)s::bigint)
                THEN pg_advisory_unlock_shared(%(quiet_key)s::bigint)
                ELSE false
            END
            AND pg_try_advisory_lock(%(quiet_key)s::bigint + 1)
            AND pg_advisory_unlock(%(quiet_key)s::bigint + 1)
            AND pg_try_advisory_xact_lock_shared(%(quiet_key)s::bigint + 2)
        THEN ''
        ELSE pg_notify(%(channel)s, %(payload)s)::text
    END,
    %(input_json)s::jsonb, %(input_bytes)s, %(codec)s,
    coalesce(
        %(start_at)s::timestamptz,
        coalesce(%(now)s::timestamptz, statement_timestamp())
        + %(delay_s)s::float8 * interval '1 second'
    ),
    coalesce(
        %(deadline)s::timestamptz,
        coalesce(%(now)s::timestamptz, statement_timestamp())
        + %(deadline_in_s)s::float8 * interval '1 second'
    ),
    %(tags)s::text[], %(priority)s, %(trace_context)s, %(idempotency_key)s,
    coalesce(%(now)s::timestamptz, statement_timestamp()),
    coalesce(%(now)s::timestamptz, statement_timestamp())
)
ON CONFLICT DO NOTHING
RETURNING run_id
