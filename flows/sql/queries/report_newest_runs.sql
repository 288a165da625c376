-- Count the %(limit)s runs of one shard that were begun last by status, and how many of them have ended
-- in the last %(window_s)s seconds.
-- Locks:  nothing.
-- Index:  the primary key, from its end.
SELECT
    status, count(*),
    count(*) FILTER (
        WHERE finished_at >= statement_timestamp() - %(window_s)s::float8 * interval '1 second'
    )
FROM (
    SELECT status, finished_at
    FROM flows.runs
    WHERE workflow_name_shard = %(shard)s
    ORDER BY run_id DESC
    LIMIT %(limit)s
) AS newest
GROUP BY status
