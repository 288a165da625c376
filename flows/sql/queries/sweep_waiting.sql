-- Put runs of one shard back in the queue whose event is there: what wake_satisfied missed
-- because the publisher committed later and its notification was lost. Only runs that began to
-- wait within %(window_s)s seconds are looked at; null looks at all.
-- Locks:  the runs, NO KEY; one that is locked is left to whoever is waking it, or to the next sweep.
-- Index:  runs_waiting_idx; then waits and events by their primary keys, run by run: OFFSET 0 keeps
--         the planner from joining the tables whole.
WITH satisfied AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.status = 'waiting_event'
      AND d.updated_at >= coalesce(
          statement_timestamp() - %(window_s)s::float8 * interval '1 second', '-infinity'
      )
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
