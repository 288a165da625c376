-- What runs are found by: tags, and a key that keeps a run from being begun twice.

ALTER TABLE flows.runs
    ADD COLUMN IF NOT EXISTS tags            text[],
    ADD COLUMN IF NOT EXISTS idempotency_key text;

-- With the shard, because Citus keeps nothing unique without it. The key stands first, so that a run
-- is found by it in all shards.
CREATE UNIQUE INDEX IF NOT EXISTS runs_idempotency_idx
    ON flows.runs (idempotency_key, workflow_name_shard)
    WHERE idempotency_key IS NOT NULL;

CREATE INDEX IF NOT EXISTS runs_tags_idx
    ON flows.runs USING gin (tags)
    WHERE tags IS NOT NULL;

INSERT INTO flows.migrations (version, name) VALUES (5, 'tags') ON CONFLICT DO NOTHING;
