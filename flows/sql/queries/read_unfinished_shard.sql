-- Read the first shard after %(after)s in which a run is due, sleeps or waits; null if none is left.
-- Asked again with its answer it names them all, in as many looks as there are.
-- Locks:  nothing.
-- Index:  runs_claimable_idx, runs_waiting_idx: one entry of each.
SELECT min(workflow_name_shard)
FROM (
    (
        SELECT workflow_name_shard
        FROM flows.runs
        WHERE status IN ('queued', 'sleeping')
          AND workflow_name_shard > %(after)s
        ORDER BY workflow_name_shard
        LIMIT 1
    )
    UNION ALL
    (
        SELECT workflow_name_shard
        FROM flows.runs
        WHERE status = 'waiting_event'
          AND workflow_name_shard > %(after)s
        ORDER BY workflow_name_shard
        LIMIT 1
    )
) AS following
