-- Read in how many seconds the next run of one shard is due; zero or less if one is due now.
-- Locks:  nothing.
-- Index:  runs_claimable_idx.
SELECT extract(epoch FROM
    coalesce(next_wake_at, created_at) - coalesce(%(now)s::timestamptz, statement_timestamp())
)::float8
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND status IN ('queued', 'sleeping')
ORDER BY coalesce(next_wake_at, created_at)
LIMIT 1
