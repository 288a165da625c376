-- The trace that a run was begun in: what OpenTelemetry's propagator has written, as the text of a
-- JSON object. Every attempt of the run is a child of it.

ALTER TABLE flows.runs
    ADD COLUMN IF NOT EXISTS trace_context text;

INSERT INTO flows.migrations (version, name) VALUES (7, 'trace_context') ON CONFLICT DO NOTHING;
