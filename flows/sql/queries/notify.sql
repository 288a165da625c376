-- Tell the workers that a shard, or one run of it, needs a look.
-- Locks:  nothing until commit, then PostgreSQL's queue of notifications.
-- Index:  none.
SELECT pg_notify(%(channel)s, %(payload)s)
