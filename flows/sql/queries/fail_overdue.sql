-- Fail the runs of one shard that are past their deadline and not running; the attempt of one that
-- is running ends itself. The error of an attempt that failed before is kept below.
-- Locks:  the runs, NO KEY; one that is locked is left to the next look.
-- Index:  runs_deadline_idx, then the primary key.
WITH overdue AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.deadline <= coalesce(%(now)s::timestamptz, statement_timestamp())
      AND d.status IN ('queued', 'sleeping', 'waiting_event')
    ORDER BY d.deadline
    LIMIT 1000
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = 'failed',
    error_text = %(error_type)s || ': run ' || r.workflow_name_shard || ':' || r.run_id::text
        || ' was not done by its deadline'
        || coalesce(E'\n\nThe attempt before had failed:\n\n' || r.error_text, ''),
    next_wake_at = NULL,
    updated_at = statement_timestamp(),
    finished_at = statement_timestamp()
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM overdue))
