-- Read what an operator wants to know of schedules: of all, or of one.
-- Locks:  nothing.
-- Index:  the primary key for one; all of them are read otherwise.
SELECT
    schedule_id, workflow_name, cron_expr AS rule, timezone, enabled, next_run_at, last_run_at,
    last_shard || ':' || last_run_id::text AS last_run,
    coalesce(catch_up, 'latest') AS catch_up,
    coalesce(catch_up_limit, 100) AS catch_up_limit,
    coalesce(overlap, 'allow') AS overlap,
    coalesce(extract(epoch FROM jitter), 0)::float8 AS jitter,
    error_text AS error, created_at, updated_at, statement_timestamp() AS read_at,
    input_json, input_bytes, codec AS input_codec
FROM flows.schedules
WHERE %(schedule_id)s::text IS NULL OR schedule_id = %(schedule_id)s
ORDER BY schedule_id
