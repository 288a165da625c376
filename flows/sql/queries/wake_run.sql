-- Queue a run that waits for this event. A run seen running is not waited for: when it yields,
-- its worker looks for the event itself.
-- Locks:  the run, NO KEY, only where it waits.
-- Index:  the primary keys; CASE keeps the planner from walking runs_waiting_idx instead.
UPDATE flows.runs AS r
SET status = 'queued',
    next_wake_at = NULL,
    updated_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = %(run_id)s
  AND CASE WHEN r.status = 'waiting_event' THEN true END
  AND EXISTS (
      SELECT 1
      FROM flows.waits AS w
      WHERE w.workflow_name_shard = %(shard)s
        AND w.run_id = %(run_id)s
        AND w.wait_type = 'event'
        AND w.event_name = %(event_name)s
        AND w.satisfied_at IS NULL
  )
RETURNING 1
