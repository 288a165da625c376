-- Count the schedules of each of some workflows that should have fired %(late_s)s seconds ago or
-- earlier, %(limit)s at most.
-- Locks:  nothing.
-- Index:  schedules_due_by_workflow_idx, from its beginning.
SELECT w.workflow_name, late.count
FROM unnest(%(workflow_names)s::text[]) AS w (workflow_name)
CROSS JOIN LATERAL (
    SELECT count(*) AS count
    FROM (
        SELECT 1
        FROM flows.schedules AS s
        WHERE s.enabled
          AND s.workflow_name = w.workflow_name
          AND s.next_run_at <= coalesce(%(now)s::timestamptz, statement_timestamp())
              - %(late_s)s::float8 * interval '1 second'
        ORDER BY s.next_run_at
        LIMIT %(limit)s
    ) AS head
) AS late
