-- Read the version of the tables.
-- Locks:  nothing.
-- Index:  none, a few rows.
SELECT max(version) FROM flows.migrations
