-- Renew the lease of one worker; no row if it was given up in the meantime.
-- Locks:  its row.
-- Index:  the primary key.
UPDATE flows.workers
SET lease_expires_at = statement_timestamp() + %(lease_s)s * interval '1 second'
WHERE worker_id = %(worker_id)s
  AND stopped_at IS NULL
