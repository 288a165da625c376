-- Read when the processes of one run died, and why.
-- Locks:  nothing.
-- Index:  the primary key.
SELECT created_at AS at, cause, step_key, host, pid, claim
FROM flows.crashes
WHERE workflow_name_shard = %(shard)s
  AND run_id = %(run_id)s
ORDER BY claim
