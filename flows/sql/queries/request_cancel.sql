-- Ask for an unfinished run to be cancelled by whoever executes it. No row if there is none.
-- Locks:  the request; its run for the foreign key, KEY SHARE, which an attempt does not hold up.
-- Index:  the primary keys.
INSERT INTO flows.cancellations (workflow_name_shard, run_id, requested_at)
SELECT r.workflow_name_shard, r.run_id, statement_timestamp()
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
  AND CASE WHEN r.status NOT IN ('completed', 'failed', 'cancelled') THEN true END
ON CONFLICT (workflow_name_shard, run_id) DO UPDATE
SET requested_at = EXCLUDED.requested_at
RETURNING 1
