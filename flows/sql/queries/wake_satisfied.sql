-- Put runs of one shard back in the queue whose event was published while they were yielding:
-- the publisher saw them running and could not. Only a wait of the run's latest claim counts: one
-- that the workflow has left behind would wake it for ever.
-- Locks:  the runs, NO KEY; one that is locked is left to whoever is waking it, or to the sweep.
-- Index:  the primary key; then waits and events by theirs, run by run: OFFSET 0 keeps the planner
--         from joining the tables whole, and CASE from walking runs_waiting_idx instead.
WITH satisfied AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND CASE WHEN d.status = 'waiting_event' THEN true END
      AND d.run_id = ANY(%(run_ids)s::uuid[])
      AND EXISTS (
          SELECT 1
          FROM flows.waits AS w
          JOIN flows.events AS e
            ON e.workflow_name_shard = %(shard)s
           AND e.run_id = d.run_id
           AND e.event_name = w.event_name
          WHERE w.workflow_name_shard = %(shard)s
            AND w.run_id = d.run_id
            AND w.claim = d.claim
            AND w.wait_type = 'event'
            AND w.satisfied_at IS NULL
          OFFSET 0
      )
    FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'queued',
    next_wake_at = NULL,
    updated_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM satisfied))
