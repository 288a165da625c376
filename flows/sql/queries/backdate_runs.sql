-- Move the runs of one shard back in time, all or those begun after an instant: to them it is as if
-- so much time had passed. For tests.
-- Locks:  the runs, NO KEY.
-- Index:  the primary key.
UPDATE flows.runs AS r
SET created_at = (r.created_at AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC',
    updated_at = (r.updated_at AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC',
    started_at = (r.started_at AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC',
    finished_at = (r.finished_at AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC',
    next_wake_at = (r.next_wake_at AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC',
    deadline = (r.deadline AT TIME ZONE 'UTC' - d.duration) AT TIME ZONE 'UTC'
FROM (SELECT %(by_s)s::float8 * interval '1 second' AS duration) AS d
WHERE r.workflow_name_shard = %(shard)s
  AND r.created_at > coalesce(%(begun_after)s::timestamptz, '-infinity')
