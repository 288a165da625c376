-- Have whoever begins runs of one workflow know that this worker need not be told, and ask for quiet;
-- false if another worker has asked.
-- Locks:  the advisory ones, of the session; waits for nobody.
-- Index:  none.
SELECT
    pg_try_advisory_lock(%(quiet_key)s::bigint),
    CASE WHEN %(is_told)s::bool THEN pg_advisory_unlock_shared(%(quiet_key)s::bigint + 1) END
