-- Read in how many seconds the next deadline of an unfinished run of one shard comes; zero or less
-- if one is past.
-- Locks:  nothing.
-- Index:  runs_deadline_idx.
SELECT extract(epoch FROM
    deadline - coalesce(%(now)s::timestamptz, statement_timestamp())
)::float8
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND deadline IS NOT NULL
  AND status IN ('queued', 'running', 'sleeping', 'waiting_event')
ORDER BY deadline
LIMIT 1
