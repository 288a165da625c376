-- Read whether a worker still holds its lease.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT stopped_at IS NULL
FROM flows.workers
WHERE worker_id = %(worker_id)s
