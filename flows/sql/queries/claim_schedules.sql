-- Take schedules whose time has come, for the transaction that fires them.
-- Locks:  their rows; one that another process fires is skipped.
-- Index:  schedules_due_by_workflow_idx.
SELECT
    schedule_id, workflow_name, cron_expr, timezone, input_json, input_bytes, codec, next_run_at,
    catch_up, catch_up_limit, overlap, jitter, last_shard, last_run_id,
    coalesce(%(now)s::timestamptz, statement_timestamp())
FROM flows.schedules
WHERE
    enabled
    AND workflow_name = ANY(%(workflow_names)s)
    AND next_run_at <= coalesce(%(now)s::timestamptz, statement_timestamp())
ORDER BY next_run_at
LIMIT %(wanted)s
FOR NO KEY UPDATE SKIP LOCKED
