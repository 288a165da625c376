-- Create a schedule, or replace one: it is due anew if its rule has changed, or if it was paused.
-- Locks:  its row.
-- Index:  the primary key.
INSERT INTO flows.schedules AS s (
    schedule_id, workflow_name, cron_expr, timezone, input_json, input_bytes, codec, enabled,
    next_run_at, catch_up, catch_up_limit, overlap, jitter, last_run_at, last_shard, last_run_id,
    created_at, updated_at
)
VALUES (
    %(schedule_id)s, %(workflow_name)s, %(cron_expr)s, %(timezone)s, %(input_json)s::jsonb,
    %(input_bytes)s, %(codec)s, true, %(next_run_at)s, %(catch_up)s, %(catch_up_limit)s,
    %(overlap)s, %(jitter)s, %(last_run_at)s, %(last_shard)s, %(last_run_id)s, %(now)s, %(now)s
)
ON CONFLICT (schedule_id) DO UPDATE SET
    workflow_name = excluded.workflow_name,
    cron_expr = excluded.cron_expr,
    timezone = excluded.timezone,
    input_json = excluded.input_json,
    input_bytes = excluded.input_bytes,
    codec = excluded.codec,
    enabled = true,
    error_text = NULL,
    next_run_at = CASE
        WHEN
            s.enabled
            AND s.cron_expr = excluded.cron_expr
            AND coalesce(s.timezone, 'UTC') = coalesce(excluded.timezone, 'UTC')
            THEN s.next_run_at
        ELSE excluded.next_run_at
    END,
    catch_up = excluded.catch_up,
    catch_up_limit = excluded.catch_up_limit,
    overlap = excluded.overlap,
    jitter = excluded.jitter,
    last_run_at = coalesce(excluded.last_run_at, s.last_run_at),
    last_shard = coalesce(excluded.last_shard, s.last_shard),
    last_run_id = coalesce(excluded.last_run_id, s.last_run_id),
    updated_at = excluded.updated_at
