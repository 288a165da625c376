-- Mark workers as stopped whose lease ran out.
-- Locks:  their rows; locked ones are skipped.
-- Index:  workers_live_idx.
UPDATE flows.workers
SET stopped_at = statement_timestamp()
WHERE worker_id IN (
    SELECT worker_id
    FROM flows.workers
    WHERE stopped_at IS NULL
      AND lease_expires_at < coalesce(%(now)s::timestamptz, statement_timestamp())
    FOR UPDATE SKIP LOCKED
)
