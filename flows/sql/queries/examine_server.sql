-- Read the server's time and how many connections it has and may have; and of the sessions that idle in a
-- transaction of this database, which has been open longest.
-- Locks:  nothing.
-- Index:  none.
SELECT
    extract(epoch FROM clock_timestamp())::float8 AS now_s,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int AS allowed,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected,
    idle.age_s, idle.pid, idle.application_name
FROM (SELECT 1) AS one
LEFT JOIN LATERAL (
    SELECT
        extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s,
        a.pid, a.application_name
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database()
      AND a.state IN ('idle in transaction', 'idle in transaction (aborted)')
    ORDER BY a.xact_start
    LIMIT 1
) AS idle ON true
