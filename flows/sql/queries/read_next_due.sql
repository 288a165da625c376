-- Read in how many seconds the next sleeping run of one shard is due.
-- Locks:  nothing.
-- Index:  runs_claimable_idx.
SELECT extract(epoch FROM
    coalesce(next_wake_at, created_at) - coalesce(%(now)s::timestamptz, statement_timestamp())
)::float8
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND status IN ('queued', 'sleeping')
  AND coalesce(next_wake_at, created_at)
      > coalesce(%(now)s::timestamptz, statement_timestamp())
ORDER BY coalesce(next_wake_at, created_at)
LIMIT 1
