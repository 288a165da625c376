-- Count the running runs whose worker is not live, and has not been for longer than it takes to notice.
-- Locks:  nothing.
-- Index:  runs_running_idx, workers_live_idx.
WITH held AS MATERIALIZED (
    SELECT worker_id
    FROM flows.runs
    WHERE worker_id IS NOT NULL
      AND status = 'running'
)
SELECT count(*)
FROM held
LEFT JOIN flows.workers AS live
    ON live.worker_id = held.worker_id
    AND live.lease_expires_at > statement_timestamp() - interval '30 seconds'
    AND (live.stopped_at IS NULL OR live.stopped_at > statement_timestamp() - interval '30 seconds')
WHERE live.worker_id IS NULL
