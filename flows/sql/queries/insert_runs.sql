-- Enqueue many runs of one shard, or have them sleep until they start.
-- Locks:  their new rows.
-- Index:  none.
INSERT INTO flows.runs (
    workflow_name_shard, run_id, workflow_name, status, input_json, input_bytes, codec,
    next_wake_at, deadline, tags, priority, trace_context, created_at, updated_at
)
SELECT
    %(shard)s, u.run_id, %(workflow_name)s,
    CASE
        WHEN %(start_at)s::timestamptz IS NULL AND %(delay_s)s::float8 IS NULL THEN 'queued'
        ELSE 'sleeping'
    END,
    u.input_json, u.input_bytes, %(codec)s,
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
    %(tags)s::text[], %(priority)s, %(trace_context)s,
    coalesce(%(now)s::timestamptz, statement_timestamp()),
    coalesce(%(now)s::timestamptz, statement_timestamp())
FROM unnest(%(run_ids)s::uuid[], %(input_json)s::jsonb[], %(input_bytes)s::bytea[])
    AS u (run_id, input_json, input_bytes)
