-- Ask for those of some runs of one shard that are unfinished to be cancelled by whoever executes them.
-- Locks:  the requests; their runs for the foreign key, KEY SHARE, which an attempt does not hold up.
-- Index:  the primary keys.
INSERT INTO flows.cancellations (workflow_name_shard, run_id, requested_at)
SELECT r.workflow_name_shard, r.run_id, statement_timestamp()
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
  AND CASE WHEN r.status NOT IN ('completed', 'failed', 'cancelled') THEN true END
ORDER BY r.run_id
ON CONFLICT (workflow_name_shard, run_id) DO UPDATE
SET requested_at = EXCLUDED.requested_at
RETURNING run_id
