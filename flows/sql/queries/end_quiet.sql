-- Have whoever begins runs of one workflow tell of them; false if that must be tried again, because
-- somebody has looked at the lock at this moment.
-- Locks:  the advisory ones, of the session; waits for nobody.
-- Index:  none.
SELECT CASE
    WHEN NOT pg_try_advisory_lock_shared(%(quiet_key)s::bigint + 1) THEN false
    WHEN %(has_asked)s::bool THEN pg_advisory_unlock(%(quiet_key)s::bigint)
    ELSE true
END
