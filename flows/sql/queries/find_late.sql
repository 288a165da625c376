-- Tell whether a transaction goes on that has begun runs of one workflow in quiet.
-- Locks:  an advisory one, until the end of the statement; waits for nobody.
-- Index:  none.
SELECT NOT pg_try_advisory_xact_lock(%(quiet_key)s::bigint + 2)
