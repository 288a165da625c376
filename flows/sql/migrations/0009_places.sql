-- Where in the run's code a memo was made. Times do not tell: many memos are written at once, by two
-- connections, and not when they are made. NULL is what nobody has counted: older rows, and those of
-- the reference package.

ALTER TABLE flows.steps
    ADD COLUMN IF NOT EXISTS place bigint;

ALTER TABLE flows.waits
    ADD COLUMN IF NOT EXISTS place bigint;

ALTER TABLE flows.random
    ADD COLUMN IF NOT EXISTS place bigint;

INSERT INTO flows.migrations (version, name) VALUES (9, 'places') ON CONFLICT DO NOTHING;
