-- Mark a worker as stopped: its lease ends now.
-- Locks:  its row.
-- Index:  the primary key.
UPDATE flows.workers
SET stopped_at = statement_timestamp()
WHERE worker_id = %(worker_id)s
  AND stopped_at IS NULL
