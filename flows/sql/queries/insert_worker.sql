-- Register a worker process and its lease, unless that was done.
-- Locks:  its new row.
-- Index:  the primary key.
INSERT INTO flows.workers (
    worker_id, supervisor_id, workflow_names, host, pid, started_at, lease_expires_at
)
VALUES (
    %(worker_id)s, %(supervisor_id)s, %(workflow_names)s, %(host)s, %(pid)s,
    statement_timestamp(), statement_timestamp() + %(lease_s)s * interval '1 second'
)
ON CONFLICT (worker_id) DO NOTHING
