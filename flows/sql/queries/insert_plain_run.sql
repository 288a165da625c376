-- Enqueue one run of which nothing more is said than its input, as insert_run does: most are, and
-- what is not asked for here takes a tenth of the time of a begin.
-- Locks:  its new row.
-- Index:  none.
INSERT INTO flows.runs (
    workflow_name_shard, run_id, workflow_name, status, input_json, input_bytes, codec,
    trace_context, created_at, updated_at
)
VALUES (
    %(shard)s, %(run_id)s, %(workflow_name)s,
    'queued' || CASE
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
        WHEN %(is_alone)s::bool
            AND pg_try_advisory_xact_lock_shared(%(quiet_key)s::bigint + 2)
            AND NOT pg_try_advisory_xact_lock(
                hashtextextended(%(shard)s::text, %(quiet_key)s::bigint)
            )
        THEN ''
        ELSE pg_notify(%(channel)s, %(shard)s)::text
    END,
    %(input_json)s::jsonb, %(input_bytes)s, %(codec)s,
    %(trace_context)s, statement_timestamp(), statement_timestamp()
)
