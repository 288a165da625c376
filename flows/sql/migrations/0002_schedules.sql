-- What a schedule of ours may say beyond the reference package's: NULL is the default of each.

ALTER TABLE flows.schedules
    ADD COLUMN IF NOT EXISTS catch_up       text,
    ADD COLUMN IF NOT EXISTS catch_up_limit int,
    ADD COLUMN IF NOT EXISTS overlap        text,
    ADD COLUMN IF NOT EXISTS jitter         interval,
    ADD COLUMN IF NOT EXISTS last_shard     text,
    ADD COLUMN IF NOT EXISTS last_run_id    uuid,
    ADD COLUMN IF NOT EXISTS error_text     text;

-- By workflow, so that those of workflows nobody runs here are not walked at every look.
CREATE INDEX IF NOT EXISTS schedules_due_by_workflow_idx
    ON flows.schedules (workflow_name, next_run_at)
    WHERE enabled;

DROP INDEX IF EXISTS flows.schedules_due_idx;

INSERT INTO flows.migrations (version, name) VALUES (2, 'schedules') ON CONFLICT DO NOTHING;
