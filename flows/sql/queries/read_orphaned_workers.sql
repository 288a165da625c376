-- Read the workers that still hold runs and are not live, and in which shards. Who holds runs is read
-- first: on Citus a worker that registers and claims in between would seem to be none.
-- Locks:  nothing.
-- Index:  runs_running_idx, workers_live_idx.
WITH held AS MATERIALIZED (
    SELECT DISTINCT workflow_name_shard, worker_id
    FROM flows.runs
    WHERE worker_id IS NOT NULL
      AND status = 'running'
)
SELECT held.workflow_name_shard, held.worker_id
FROM held
LEFT JOIN flows.workers AS live ON live.worker_id = held.worker_id AND live.stopped_at IS NULL
WHERE live.worker_id IS NULL
