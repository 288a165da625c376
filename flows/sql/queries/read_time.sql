-- Read the database's time.
-- Locks:  nothing.
-- Index:  none.
SELECT coalesce(%(now)s::timestamptz, statement_timestamp())
