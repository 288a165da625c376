-- Read which indexes a schema has, and whether each can be used.
-- Locks:  nothing.
-- Index:  none.
SELECT c.relname, i.indisvalid AND i.indisready
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s
