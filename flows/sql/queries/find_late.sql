-- Tell whether a transaction goes on that has begun runs of one workflow and tells nobody.
-- Locks:  an advisory one, for a moment; waits for nobody.
-- Index:  none.
SELECT CASE
    WHEN pg_try_advisory_lock(%(quiet_key)s::bigint + 2)
    THEN NOT pg_advisory_unlock(%(quiet_key)s::bigint + 2)
    ELSE true
END
