-- Read in how many seconds the next schedule of some workflows is due.
-- Locks:  nothing.
-- Index:  schedules_due_by_workflow_idx: the first entry of each workflow.
SELECT
    extract(
        epoch FROM
        min(head.next_run_at) - coalesce(%(now)s::timestamptz, statement_timestamp())
    )::float8
FROM unnest(%(workflow_names)s::text[]) AS w (workflow_name)
CROSS JOIN LATERAL (
    SELECT s.next_run_at
    FROM flows.schedules AS s
    WHERE s.enabled AND s.workflow_name = w.workflow_name
    ORDER BY s.next_run_at
    LIMIT 1
) AS head
