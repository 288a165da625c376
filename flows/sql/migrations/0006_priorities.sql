-- Runs with a priority are claimed before the others. Those have none, and are found by
-- runs_claimable_idx as before: who gives no priorities pays for an index that stays empty.

CREATE INDEX IF NOT EXISTS runs_urgent_idx
    ON flows.runs (workflow_name_shard, priority, coalesce(next_wake_at, created_at))
    WHERE priority BETWEEN 1 AND 9 AND status IN ('queued', 'sleeping');

INSERT INTO flows.migrations (version, name) VALUES (6, 'priorities') ON CONFLICT DO NOTHING;
