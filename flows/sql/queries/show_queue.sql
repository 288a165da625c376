-- Read how many runs of one shard are due before one run, %(limit)s at most, and how many are
-- being executed. Before it are due runs of a higher priority, and earlier ones of its own.
-- Locks:  nothing.
-- Index:  runs_urgent_idx and runs_claimable_idx, from the beginning; runs_running_idx.
SELECT
    least(%(limit)s, (
        SELECT count(*)
        FROM (
            SELECT 1
            FROM flows.runs AS a
            WHERE a.workflow_name_shard = %(shard)s
              AND a.status IN ('queued', 'sleeping')
              AND a.priority = r.priority
              AND coalesce(a.next_wake_at, a.created_at) < coalesce(r.next_wake_at, r.created_at)
            ORDER BY coalesce(a.next_wake_at, a.created_at)
            LIMIT %(limit)s
        ) AS earlier
    ) + (
        SELECT count(*)
        FROM (
            SELECT 1
            FROM flows.runs AS a
            WHERE a.workflow_name_shard = %(shard)s
              AND a.status IN ('queued', 'sleeping')
              AND a.priority BETWEEN 1 AND 9
              AND a.priority > r.priority
              AND coalesce(a.next_wake_at, a.created_at) <= statement_timestamp()
            LIMIT %(limit)s
        ) AS more_urgent
    )) AS ahead,
    (
        SELECT count(*)
        FROM flows.runs AS e
        WHERE e.workflow_name_shard = %(shard)s
          AND e.worker_id IS NOT NULL
    ) AS executing
FROM flows.runs AS r
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
