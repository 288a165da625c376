-- Count the runs of one shard by the statuses that have an index, at most %(limit)s of each index.
-- Locks:  nothing.
-- Index:  runs_claimable_idx, runs_running_idx, runs_waiting_idx, runs_failed_idx, runs_cancelled_idx.
SELECT status, count(*)
FROM (
    (
        SELECT status
        FROM flows.runs
        WHERE workflow_name_shard = %(shard)s
          AND status IN ('queued', 'sleeping')
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT status
        FROM flows.runs
        WHERE workflow_name_shard = %(shard)s
          AND status = 'running'
          AND worker_id IS NOT NULL
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT status
        FROM flows.runs
        WHERE workflow_name_shard = %(shard)s
          AND status = 'waiting_event'
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT status
        FROM flows.runs
        WHERE workflow_name_shard = %(shard)s
          AND status = 'failed'
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT status
        FROM flows.runs
        WHERE workflow_name_shard = %(shard)s
          AND status = 'cancelled'
        LIMIT %(limit)s
    )
) AS indexed
GROUP BY status
