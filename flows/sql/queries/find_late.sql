-- Tell whether transactions may go on that have begun runs of one workflow and tell nobody.
-- Locks:  an advisory one, for a moment; waits for nobody.
-- Index:  none.
SELECT CASE
    WHEN pg_try_advisory_lock(%(quiet_key)s::bigint + 2)
    THEN NOT pg_advisory_unlock(%(quiet_key)s::bigint + 2)
    ELSE true
END
