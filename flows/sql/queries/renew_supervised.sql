-- Renew the leases of all workers of one supervisor, but of those that are known to be dead.
-- Locks:  their rows.
-- Index:  workers_live_idx.
UPDATE flows.workers
SET lease_expires_at = statement_timestamp() + %(lease_s)s * interval '1 second'
WHERE supervisor_id = %(supervisor_id)s
  AND stopped_at IS NULL
  AND worker_id <> ALL(%(dead)s::uuid[])
