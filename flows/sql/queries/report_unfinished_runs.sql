-- Count the unfinished runs of some shards by workflow and status. One statement, so that a run
-- which begins another one and ends is never seen without it.
-- Locks:  nothing.
-- Index:  runs_claimable_idx, runs_running_idx, runs_waiting_idx; finished runs are in none.
SELECT workflow_name, status, count(*)
FROM (
    SELECT workflow_name, status
    FROM flows.runs
    WHERE workflow_name_shard = ANY(%(shards)s)
      AND status IN ('queued', 'sleeping')
    UNION ALL
    SELECT workflow_name, status
    FROM flows.runs
    WHERE workflow_name_shard = ANY(%(shards)s)
      AND status = 'running'
      AND worker_id IS NOT NULL
    UNION ALL
    SELECT workflow_name, status
    FROM flows.runs
    WHERE workflow_name_shard = ANY(%(shards)s)
      AND status = 'waiting_event'
) AS unfinished
GROUP BY workflow_name, status
