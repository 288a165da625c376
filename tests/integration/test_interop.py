"""The reference package beside ours: its tables, its runs, and what its programs expect."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RunID, RunKey, migrate
from flows.ids import uuid7
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

# The reference's own tables: its columns and nothing of ours.
REFERENCE = """
    CREATE SCHEMA flows;
    CREATE TABLE flows.runs (
        workflow_name_shard text NOT NULL, run_id uuid NOT NULL, workflow_name text NOT NULL,
        status text NOT NULL, input_json jsonb NOT NULL, output_json jsonb, error_text text,
        next_wake_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workflow_name_shard, run_id)
    );
    CREATE TABLE flows.steps (
        workflow_name_shard text NOT NULL, run_id uuid NOT NULL, step_key text NOT NULL,
        status text NOT NULL, input_json jsonb, output_json jsonb, error_text text,
        attempts int NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workflow_name_shard, run_id, step_key),
        FOREIGN KEY (workflow_name_shard, run_id)
            REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
    );
    CREATE TABLE flows.waits (
        workflow_name_shard text NOT NULL, run_id uuid NOT NULL, wait_key text NOT NULL,
        wait_type text NOT NULL, event_name text, wake_at timestamptz, payload_json jsonb,
        satisfied_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workflow_name_shard, run_id, wait_key),
        FOREIGN KEY (workflow_name_shard, run_id)
            REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
    );
    CREATE TABLE flows.events (
        workflow_name_shard text NOT NULL, run_id uuid NOT NULL, event_name text NOT NULL,
        payload_json jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workflow_name_shard, run_id, event_name),
        FOREIGN KEY (workflow_name_shard, run_id)
            REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
    );
    CREATE TABLE flows.random (
        workflow_name_shard text NOT NULL, run_id uuid NOT NULL, rand_key text NOT NULL,
        kind text NOT NULL, value_text text, value_bigint bigint,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (workflow_name_shard, run_id, rand_key),
        FOREIGN KEY (workflow_name_shard, run_id)
            REFERENCES flows.runs (workflow_name_shard, run_id) ON DELETE CASCADE
    );
    CREATE TABLE flows.schedules (
        schedule_id text PRIMARY KEY, workflow_name text NOT NULL, cron_expr text NOT NULL,
        input_json jsonb NOT NULL, enabled boolean NOT NULL DEFAULT true,
        last_run_at timestamptz, next_run_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
"""
BEGIN = """
    INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
    VALUES ('demo_0', %s, 'demo', 'queued', %s)
"""

MEMOS = """
    INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status, input_json,
        output_json, attempts)
    VALUES ('demo_0', %(run_id)s, 'double/v1', 'completed', '{"n": 3}', '60', 1);

    INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, wake_at)
    VALUES ('demo_0', %(run_id)s, 'cooldown/v1', 'sleep', now() - interval '1 s');

    INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, event_name,
        payload_json, satisfied_at)
    VALUES ('demo_0', %(run_id)s, 'number/v1', 'event', 'Number', '7', now());

    INSERT INTO flows.random (workflow_name_shard, run_id, rand_key, kind, value_bigint)
    VALUES ('demo_0', %(run_id)s, 'salt/v1', 'uint64', -1);

    INSERT INTO flows.random (workflow_name_shard, run_id, rand_key, kind, value_text)
    VALUES ('demo_0', %(run_id)s, 'uid/v1', 'uuidv7', '0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b')
"""


@pytest.fixture
def beside(dsn: str) -> Iterator[Runs]:
    """Runs on tables that the reference has created, with a run of its own in them."""
    with psycopg.connect(dsn) as connection:
        connection.execute(REFERENCE)
    runs = Runs(dsn)
    yield runs
    runs.close()


def begin(runs: Runs, document: str) -> RunKey:
    """Begin a run as the reference does."""
    key = RunKey("demo_0", RunID(uuid7()))
    runs.connection.execute(BEGIN, (key.run_id, document))
    return key


def demo_registry() -> Registry:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, job: dict[str, int]) -> Any:
        doubled = wf.execute("double/v1", lambda given: given["n"] * 2, job)
        wf.sleep("cooldown/v1", timedelta(hours=1))
        number = wf.wait_for_event("number/v1", "Number", int)
        return [doubled, number, wf.random_uint64("salt/v1"), str(wf.random_uuidv7("uid/v1"))]

    return registry


def test_our_migration_goes_over_the_references_tables(beside: Runs) -> None:
    before = begin(beside, '{"n": 1}')
    with psycopg.connect(beside.dsn) as connection:
        assert migrate(connection) != []
    after = begin(beside, '{"n": 2}')
    registry = demo_registry()
    assert beside.execute_due(registry) == 2
    assert {beside.status(key).status for key in (before, after)} == {"sleeping"}
    # What the reference inserts goes on working on the tables that are ours now.
    beside.connection.execute(
        "INSERT INTO flows.schedules (schedule_id, workflow_name, cron_expr, input_json,"
        " next_run_at) VALUES ('nightly', 'demo', '@every 1m', '{}', now())"
    )


def test_migrated_tables_hold_what_ours_hold(dsn: str, flows_dsn: str) -> None:
    columns = """
        SELECT table_name, column_name, data_type, is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'flows' ORDER BY 1, 2
    """
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'flows' ORDER BY 1"
    with psycopg.connect(dsn) as theirs, psycopg.connect(flows_dsn) as ours:
        theirs.execute(REFERENCE)
        migrate(theirs)
        for query in (columns, indexes):
            assert theirs.execute(query).fetchall() == ours.execute(query).fetchall()


def test_a_run_inserted_with_the_references_columns_only_is_executed(runs: Runs) -> None:
    key = begin(runs, '{"n": 3}')
    registry = demo_registry()
    assert runs.execute_due(registry) == 1
    assert runs.status(key).status == "sleeping"
    runs.connection.execute("UPDATE flows.runs SET next_wake_at = now()")
    runs.connection.execute("UPDATE flows.waits SET wake_at = now()")
    runs.execute_due(registry)
    assert runs.status(key).status == "waiting_event"
    runs.publish(key, "Number", 5)
    runs.execute_due(registry)
    assert runs.output(key)[:2] == [6, 5]


def test_a_notification_of_the_reference_wakes_our_worker(runs: Runs) -> None:
    hour = timedelta(hours=1)
    registry = Registry()
    registry.workflow("demo")(lambda wf, job: job)
    runs.start(registry, poll_interval=hour, max_poll_interval=hour)
    key = begin(runs, '{"n": 3}')
    runs.connection.execute("SELECT pg_notify('flows_run_wakeup', 'demo_0')")
    runs.wait_for(key, "completed")


def test_memos_of_the_reference_are_replayed(runs: Runs) -> None:
    key = begin(runs, '{"n": 3}')
    for statement in MEMOS.split(";"):
        runs.connection.execute(statement, {"run_id": key.run_id})
    # A worker of the reference has had it: its updated_at is later than its created_at.
    runs.connection.execute("UPDATE flows.runs SET updated_at = now() + interval '1 ms'")
    runs.execute_due(demo_registry())
    salt, uid = 2**64 - 1, "0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b"
    assert runs.output(key) == [60, 7, salt, uid]


def test_an_event_of_the_reference_is_taken(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, job: Any) -> Any:
        return wf.wait_for_event("number/v1", "Number")

    key = begin(runs, "{}")
    insert = (
        "INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)"
        " VALUES ('demo_0', %s, 'Number', '7')"
    )
    runs.connection.execute(insert, (key.run_id,))
    runs.execute_due(registry)
    assert runs.output(key) == 7


def test_what_we_write_reads_as_the_references_own(runs: Runs) -> None:
    registry = demo_registry()
    [handle] = registry.workflows()
    key = runs.execute(registry, handle, {"n": 3})
    [run] = runs.rows("SELECT workflow_name_shard, status, input_json FROM flows.runs")
    assert run == (f"demo_{key.workflow_name_shard[-1]}", "sleeping", {"n": 3})
    [step] = runs.rows("SELECT step_key, status, input_json, output_json FROM flows.steps")
    assert step == ("double/v1", "completed", {"n": 3}, 6)
    [wait] = runs.rows("SELECT wait_key, wait_type, satisfied_at FROM flows.waits")
    assert wait == ("cooldown/v1", "sleep", None)
    runs.connection.execute("DELETE FROM flows.runs")
    assert runs.rows("SELECT count(*) FROM flows.steps") == [(0,)]
