-- Read which of some runs of one shard were asked to be cancelled.
-- Locks:  nothing.
-- Index:  the primary key, run by run: OFFSET 0 keeps the planner from walking the whole shard.
SELECT u.run_id::text
FROM unnest(%(run_ids)s::uuid[]) AS u (run_id)
WHERE EXISTS (
    SELECT 1
    FROM flows.cancellations AS c
    WHERE c.workflow_name_shard = %(shard)s
      AND c.run_id = u.run_id
    OFFSET 0
)
