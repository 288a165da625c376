"""`flows doctor` finds every fault that is planted, names its remedy, and exits for monitoring."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows.cli import diagnosis
from flows.cli.diagnosis import Due, Finding
from flows.cli.examination import expected_indexes
from tests.citus import not_on_citus
from tests.integration.command import flows
from tests.postgres import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = (
    "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, created_at,"
    " worker_id) VALUES (%s, %s, 'demo', %s, now() - interval '1 hour', %s)"
)


@pytest.fixture
def own_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database of the test's own, which it may damage."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        yield dsn


def found(dsn: str, *options: str) -> tuple[int, dict[str, Finding]]:
    """Return the exit code, and what is not well by its check."""
    done = flows("doctor", "--json", "--dsn", dsn, *options)
    assert done.stderr == ""
    findings = [Finding(**each) for each in json.loads(done.stdout)["findings"]]
    assert all((each.remedy is None) is (each.level == "ok") for each in findings)
    return done.returncode, {each.check: each for each in findings if each.level != "ok"}


def change(dsn: str, statement: str, *values: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode(), values)


def test_a_new_database_is_well(own_dsn: str) -> None:
    assert found(own_dsn, "--shards", "1") == (0, {})
    page = flows("doctor", "--dsn", own_dsn)
    assert page.returncode == 0
    assert all(line.startswith("ok ") for line in page.stdout.splitlines())


def test_a_missing_and_an_invalid_index_are_found(own_dsn: str) -> None:
    change(own_dsn, "DROP INDEX flows.runs_failed_idx")
    code, faults = found(own_dsn)
    assert (code, faults["indexes"].told) == (2, "missing: runs_failed_idx")
    change(
        own_dsn,
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'flows.runs_waiting_idx'::regclass",
    )
    page = flows("doctor", "--dsn", own_dsn)
    assert "invalid: runs_waiting_idx" in page.stdout
    assert "-> REINDEX INDEX CONCURRENTLY runs_waiting_idx" in page.stdout


def test_tables_that_are_missing_or_old_are_an_error_and_no_traceback(
    own_dsn: str, server_dsn: str
) -> None:
    change(own_dsn, "DELETE FROM flows.migrations WHERE version > 1")
    code, faults = found(own_dsn)
    assert (code, set(faults)) == (2, {"schema"})
    assert "run: flows migrate" in str(faults["schema"].remedy)
    code, faults = found(own_dsn, "--schema", "nowhere")
    assert (code, faults["schema"].told) == (2, "schema 'nowhere' has no flows tables")


def test_runs_that_nobody_takes_or_gives_back_are_found(own_dsn: str) -> None:
    change(own_dsn, RUN, "demo_3", uuid.uuid4(), "queued", None)
    change(own_dsn, RUN, "demo_0", uuid.uuid4(), "running", uuid.uuid4())
    code, faults = found(own_dsn, "--shards", "2")
    assert code == 2
    assert set(faults) == {"workers", "stuck runs", "shards"}
    assert faults["workers"].told.endswith("due for 1 h 00 min, and no live worker")
    assert faults["stuck runs"].told.startswith("1 running runs have no live worker")
    assert "--shards 4" in str(faults["shards"].remedy)
    worker = uuid.uuid4()
    change(
        own_dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        " VALUES (%s, '{demo}', 'here', 1, now() + interval '1 hour')",
        worker,
    )
    change(own_dsn, "UPDATE flows.runs SET worker_id = %s WHERE status = 'running'", worker)
    code, faults = found(own_dsn, "--shards", "4")
    assert (code, set(faults), faults["workers"].level) == (1, {"workers"}, "warning")


@not_on_citus("dead rows are on the nodes, where nothing is asked")
def test_dead_rows_and_broken_schedules_are_warnings(own_dsn: str) -> None:
    insert = (
        "INSERT INTO flows.schedules (schedule_id, workflow_name, cron_expr, next_run_at,"
        " error_text) SELECT n::text, 'demo', 'x', now(), 'why' FROM generate_series(1, 12000) n"
    )
    with psycopg.connect(own_dsn, autocommit=True) as connection:
        # In one session: others report what they did when they end, in any order.
        for statement in (insert, "DELETE FROM flows.schedules WHERE schedule_id <> '1'"):
            connection.execute(statement.encode())
            connection.execute("SELECT pg_stat_force_next_flush()")
    code, faults = found(own_dsn)
    assert (code, set(faults)) == (1, {"bloat", "schedules"})
    assert faults["bloat"].told == "table schedules has 11999 dead rows beside 1 live ones"
    assert faults["schedules"].told == "1 schedule cannot be fired"


def test_a_schedule_that_nobody_fires_is_found(own_dsn: str) -> None:
    change(
        own_dsn,
        "INSERT INTO flows.schedules (schedule_id, workflow_name, cron_expr, next_run_at, enabled)"
        " VALUES ('late', 'report', '@every 1h', now() - interval '1 hour', true),"
        " ('paused', 'other', '@every 1h', now() - interval '1 hour', false),"
        " ('due', 'more', '@every 1h', now() - interval '5 seconds', true)",
    )
    code, faults = found(own_dsn)
    assert (code, set(faults)) == (2, {"schedules"})
    assert faults["schedules"].told == (
        "workflow 'report' has a schedule that is due for 1 h 00 min, and no live worker"
    )
    change(
        own_dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        " VALUES (gen_random_uuid(), '{report}', 'here', 1, now() + interval '1 hour')",
    )
    code, faults = found(own_dsn)
    assert (code, faults["schedules"].level) == (1, "warning")
    change(
        own_dsn,
        "UPDATE flows.schedules SET next_run_at = now() - interval '9 minutes'"
        " WHERE schedule_id = 'late'",
    )
    assert found(own_dsn) == (0, {})


def test_the_session_that_idles_in_a_transaction_is_told_by_its_process(own_dsn: str) -> None:
    with psycopg.connect(own_dsn, application_name="sleepy") as connection:
        connection.execute("SELECT 1")
        pid = connection.info.backend_pid
        said = flows("doctor", "--dsn", own_dsn).stdout
    assert f"process {pid} (sleepy) idles in a transaction" in said


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (diagnosis.judge_clock(-1.9), "ok"),
        (diagnosis.judge_clock(2.0), "warning"),
        (diagnosis.judge_clock(-60.0), "error"),
        (diagnosis.judge_connections(79, 100), "ok"),
        (diagnosis.judge_connections(80, 100), "warning"),
        (diagnosis.judge_connections(95, 100), "error"),
        (diagnosis.judge_idle(None, None, None), "ok"),
        (diagnosis.judge_idle(59.0, 1, "x"), "ok"),
        (diagnosis.judge_idle(60.0, 1, "x"), "warning"),
        (diagnosis.judge_idle(900.0, 1, None), "error"),
        (diagnosis.judge_pooler(is_pooled=False, has_listen_dsn=False), "ok"),
        (diagnosis.judge_pooler(is_pooled=True, has_listen_dsn=True), "ok"),
        (diagnosis.judge_pooler(is_pooled=True, has_listen_dsn=False), "warning"),
        (*diagnosis.judge_tables([("runs", 20_001, 10_000)]), "ok"),
        (*diagnosis.judge_tables([("runs", 20_000, 10_000)]), "warning"),
        (*diagnosis.judge_tables([("runs", 1, 100_000)]), "error"),
        (*diagnosis.judge_queues([Due("demo", 59.0, 0)]), "ok"),
        (*diagnosis.judge_queues([Due("demo", 60.0, 0)]), "error"),
        (*diagnosis.judge_queues([Due("demo", 599.0, 1)]), "ok"),
        (*diagnosis.judge_queues([Due("demo", 600.0, 1)]), "warning"),
        (*diagnosis.judge_schedules(0, []), "ok"),
        (*diagnosis.judge_schedules(1, [Due("demo", 59.0, 0)]), "warning"),
        (*diagnosis.judge_schedules(0, [Due("demo", 59.0, 0)]), "ok"),
        (*diagnosis.judge_schedules(0, [Due("demo", 60.0, 0)]), "error"),
        (*diagnosis.judge_schedules(0, [Due("demo", 599.0, 1)]), "ok"),
        (*diagnosis.judge_schedules(0, [Due("demo", 600.0, 1)]), "warning"),
    ],
)
def test_each_measure_has_its_limits(finding: Finding, level: str) -> None:
    assert finding.level == level
    assert (finding.remedy is None) is (level == "ok")


def test_the_indexes_that_are_expected_are_those_that_the_migrations_leave(own_dsn: str) -> None:
    with psycopg.connect(own_dsn) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'flows'")
        assert expected_indexes() == {name for (name,) in rows}
