-- Read how many live and dead rows the tables of a schema have.
-- Locks:  nothing.
-- Index:  none.
SELECT relname, n_live_tup, n_dead_tup
FROM pg_stat_user_tables
WHERE schemaname = %(schema)s
ORDER BY relname
