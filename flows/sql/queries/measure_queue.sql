-- Count the runs of one shard that are due, %(limit)s at most, and tell for how many seconds the
-- oldest of them has been; null if there is none.
-- Locks:  nothing.
-- Index:  runs_claimable_idx.
SELECT
    count(*),
    extract(epoch FROM
        coalesce(%(now)s::timestamptz, statement_timestamp()) - min(due.due_at)
    )::float8
FROM (
    SELECT coalesce(next_wake_at, created_at) AS due_at
    FROM flows.runs
    WHERE workflow_name_shard = %(shard)s
      AND status IN ('queued', 'sleeping')
      AND coalesce(next_wake_at, created_at)
          <= coalesce(%(now)s::timestamptz, statement_timestamp())
    ORDER BY coalesce(next_wake_at, created_at)
    LIMIT %(limit)s
) AS due
