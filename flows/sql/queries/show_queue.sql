-- Read how many runs of one shard are due before one run, %(limit)s at most, and how many are being
-- executed.
-- Locks:  nothing.
-- Index:  runs_claimable_idx, from its beginning; runs_running_idx.
SELECT
    (
        SELECT count(*)
        FROM (
            SELECT 1
            FROM flows.runs AS a
            WHERE a.workflow_name_shard = %(shard)s
              AND a.status IN ('queued', 'sleeping')
              AND coalesce(a.next_wake_at, a.created_at) < (
                  SELECT coalesce(r.next_wake_at, r.created_at)
                  FROM flows.runs AS r
                  WHERE r.workflow_name_shard = %(shard)s
                    AND r.run_id = %(run_id)s
              )
            ORDER BY coalesce(a.next_wake_at, a.created_at)
            LIMIT %(limit)s
        ) AS ahead
    ) AS ahead,
    (
        SELECT count(*)
        FROM flows.runs AS e
        WHERE e.workflow_name_shard = %(shard)s
          AND e.worker_id IS NOT NULL
    ) AS executing
