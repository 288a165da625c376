-- The tables of the reference package, then the columns that are ours: each is nullable or has a
-- default, so that programs which know only the reference's columns go on working. Written so
-- that it can also be applied over tables which the reference package has created.

CREATE SCHEMA IF NOT EXISTS flows;

CREATE TABLE IF NOT EXISTS flows.migrations (
    version    int         NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS flows.runs (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    workflow_name       text        NOT NULL,
    status              text        NOT NULL,
    input_json          jsonb,
    output_json         jsonb,
    error_text          text,
    next_wake_at        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id)
);

ALTER TABLE flows.runs
    ALTER COLUMN input_json DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS attempts     int      NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS input_bytes  bytea,
    ADD COLUMN IF NOT EXISTS output_bytes bytea,
    ADD COLUMN IF NOT EXISTS codec        text,
    ADD COLUMN IF NOT EXISTS output_codec text,
    ADD COLUMN IF NOT EXISTS claim        bigint   NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS worker_id    uuid,
    ADD COLUMN IF NOT EXISTS crashes      int      NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS priority     smallint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS started_at   timestamptz,
    ADD COLUMN IF NOT EXISTS finished_at  timestamptz;

-- Partial indexes: finished runs are in none of them, so history costs nothing.
CREATE INDEX IF NOT EXISTS runs_claimable_idx
    ON flows.runs (workflow_name_shard, coalesce(next_wake_at, created_at))
    WHERE status IN ('queued', 'sleeping');

-- On worker_id, which only running runs have, and not on their status: a statement that records
-- an outcome asks for status = 'running' too, and would be planned to walk this index.
CREATE INDEX IF NOT EXISTS runs_running_idx
    ON flows.runs (worker_id, workflow_name_shard)
    WHERE worker_id IS NOT NULL;

CREATE INDEX IF NOT EXISTS runs_waiting_idx
    ON flows.runs (workflow_name_shard, updated_at)
    WHERE status = 'waiting_event';

CREATE INDEX IF NOT EXISTS runs_failed_idx
    ON flows.runs (workflow_name_shard, updated_at)
    WHERE status = 'failed';

CREATE TABLE IF NOT EXISTS flows.steps (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    step_key            text        NOT NULL,
    status              text        NOT NULL,
    input_json          jsonb,
    output_json         jsonb,
    error_text          text,
    attempts            int         NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id, step_key),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

ALTER TABLE flows.steps
    ADD COLUMN IF NOT EXISTS input_bytes  bytea,
    ADD COLUMN IF NOT EXISTS output_bytes bytea,
    ADD COLUMN IF NOT EXISTS codec        text,
    ADD COLUMN IF NOT EXISTS input_digest bytea,
    ADD COLUMN IF NOT EXISTS claim        bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS started_at   timestamptz;

CREATE TABLE IF NOT EXISTS flows.waits (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    wait_key            text        NOT NULL,
    wait_type           text        NOT NULL,
    event_name          text,
    wake_at             timestamptz,
    payload_json        jsonb,
    satisfied_at        timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id, wait_key),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

ALTER TABLE flows.waits
    ADD COLUMN IF NOT EXISTS payload_bytes bytea,
    ADD COLUMN IF NOT EXISTS codec         text,
    ADD COLUMN IF NOT EXISTS claim         bigint NOT NULL DEFAULT 0;

-- One payload per run and name: the last publish wins, a latch and not a queue.
CREATE TABLE IF NOT EXISTS flows.events (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    event_name          text        NOT NULL,
    payload_json        jsonb,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id, event_name),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

ALTER TABLE flows.events
    ALTER COLUMN payload_json DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS payload_bytes bytea,
    ADD COLUMN IF NOT EXISTS codec         text;

CREATE TABLE IF NOT EXISTS flows.random (
    workflow_name_shard text        NOT NULL,
    run_id              uuid        NOT NULL,
    rand_key            text        NOT NULL,
    kind                text        NOT NULL,
    value_text          text,
    value_bigint        bigint,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_name_shard, run_id, rand_key),
    FOREIGN KEY (workflow_name_shard, run_id)
        REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
);

ALTER TABLE flows.random
    ADD COLUMN IF NOT EXISTS claim bigint NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS flows.schedules (
    schedule_id   text        NOT NULL PRIMARY KEY,
    workflow_name text        NOT NULL,
    cron_expr     text        NOT NULL,
    input_json    jsonb,
    enabled       boolean     NOT NULL DEFAULT true,
    last_run_at   timestamptz,
    next_run_at   timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE flows.schedules
    ALTER COLUMN input_json DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS input_bytes bytea,
    ADD COLUMN IF NOT EXISTS codec       text,
    ADD COLUMN IF NOT EXISTS timezone    text;

CREATE INDEX IF NOT EXISTS schedules_due_idx
    ON flows.schedules (next_run_at)
    WHERE enabled;

-- One row per worker process. The lease says how long its claims hold without renewal.
CREATE TABLE IF NOT EXISTS flows.workers (
    worker_id        uuid        NOT NULL PRIMARY KEY,
    supervisor_id    uuid,
    workflow_names   text[]      NOT NULL,
    host             text        NOT NULL,
    pid              int         NOT NULL,
    started_at       timestamptz NOT NULL DEFAULT now(),
    lease_expires_at timestamptz NOT NULL,
    stopped_at       timestamptz
);

CREATE INDEX IF NOT EXISTS workers_live_idx
    ON flows.workers (lease_expires_at)
    WHERE stopped_at IS NULL;

INSERT INTO flows.migrations (version, name) VALUES (1, 'initial') ON CONFLICT DO NOTHING;
