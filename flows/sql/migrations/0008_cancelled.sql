-- Few runs are cancelled: who looks for them does not walk past all others.

CREATE INDEX IF NOT EXISTS runs_cancelled_idx
    ON flows.runs (workflow_name_shard, updated_at)
    WHERE status = 'cancelled';

INSERT INTO flows.migrations (version, name) VALUES (8, 'cancelled') ON CONFLICT DO NOTHING;
