-- Read where a worker runs, and how long its claims hold.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT host, pid, started_at, lease_expires_at, stopped_at
FROM flows.workers
WHERE worker_id = %(worker_id)s
