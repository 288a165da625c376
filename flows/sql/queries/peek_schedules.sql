-- Read which workflows have schedules that are due, and for how many seconds the first of each is.
-- Locks:  nothing.
-- Index:  none: there are few.
SELECT
    workflow_name,
    extract(epoch FROM statement_timestamp() - min(next_run_at))::float8 AS late_s
FROM flows.schedules
WHERE enabled
  AND next_run_at <= statement_timestamp()
GROUP BY workflow_name
ORDER BY workflow_name
