-- Record the output of one completed run, as complete_runs does for many, by a plan that is cheap to
-- make and the same for any values. A run whose claim is stale is left alone.
-- Locks:  the run, NO KEY.
-- Index:  the primary key.
UPDATE flows.runs
SET status = 'completed',
    output_json = %(output_json)s::jsonb,
    output_bytes = %(output_bytes)s::bytea,
    output_codec = %(codec)s,
    error_text = NULL,
    next_wake_at = NULL,
    worker_id = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
  AND claim = %(claim)s
  AND status = 'running'
