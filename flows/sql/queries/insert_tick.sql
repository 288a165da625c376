-- Begin the run of a schedule's tick; none if that was begun already.
-- Locks:  its new row.
-- Index:  the primary key.
INSERT INTO flows.runs (
    workflow_name_shard, run_id, workflow_name, status, input_json, input_bytes, codec,
    next_wake_at, created_at, updated_at
)
VALUES (
    %(shard)s, %(run_id)s, %(workflow_name)s, %(status)s, %(input_json)s::jsonb,
    %(input_bytes)s, %(codec)s, %(next_wake_at)s, %(now)s, %(now)s
)
ON CONFLICT DO NOTHING
