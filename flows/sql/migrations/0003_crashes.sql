-- Runs whose process died while it executed them: how often, why, and who is to be executed alone.

ALTER TABLE flows.runs
    ADD COLUMN IF NOT EXISTS is_suspect boolean NOT NULL DEFAULT false;

CREATE TABLE IF NOT EXISTS flows.crashes (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    claim               bigint      NOT NULL,
    cause               text        NOT NULL,
    step_key            text,
    worker_id           uuid,
    host                text,
    pid                 int,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id, claim),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

INSERT INTO flows.migrations (version, name) VALUES (3, 'crashes') ON CONFLICT DO NOTHING;
