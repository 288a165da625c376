-- When a run fails at the latest, and the requests to cancel runs that are being executed. Those
-- are rows of their own: the run's row is locked by its attempt while wf.tx is open.

ALTER TABLE flows.runs
    ADD COLUMN IF NOT EXISTS deadline timestamptz;

CREATE INDEX IF NOT EXISTS runs_deadline_idx
    ON flows.runs (workflow_name_shard, deadline)
    WHERE deadline IS NOT NULL AND status IN ('queued', 'running', 'sleeping', 'waiting_event');

CREATE TABLE IF NOT EXISTS flows.cancellations (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    requested_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

CREATE INDEX IF NOT EXISTS cancellations_recent_idx
    ON flows.cancellations (workflow_name_shard, requested_at);

INSERT INTO flows.migrations (version, name) VALUES (4, 'deadlines') ON CONFLICT DO NOTHING;
