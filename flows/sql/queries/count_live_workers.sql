-- Count the workers of a workflow that are live.
-- Locks:  nothing.
-- Index:  workers_live_idx.
SELECT count(*)
FROM flows.workers
WHERE stopped_at IS NULL
  AND lease_expires_at > statement_timestamp()
  AND workflow_names @> ARRAY[%(workflow_name)s::text]
