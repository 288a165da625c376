"""The roles that docs/security.md describes: each can do what it is for, and nothing more."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from flows import Client, Context, Registry, Worker, every
from tests.integration.command import flows, refused
from tests.running import Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows import RunKey

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
ROLES = ("flows_client", "flows_worker", "flows_reader")

registry = Registry()


@registry.workflow("greet")
def greet(wf: Context, name: str) -> str:
    wf.random_uuidv7("uid")
    wf.execute("step", lambda: name)
    wf.sleep("nap", timedelta(microseconds=1))
    return f"{wf.wait_for_event('wait', 'Told', str)} {name}"


@pytest.fixture
def granted(flows_dsn: str) -> Iterator[Runs]:
    """Runs as the owner, in a database where the three roles have the grants of the document."""
    (block,) = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    runs = Runs(flows_dsn)
    for role in ROLES:
        runs.connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
        runs.connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    runs.connection.execute(block.encode())
    try:
        yield runs
    finally:
        for role in ROLES:
            runs.connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            runs.connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        runs.close()


def dsn_of(runs: Runs, role: str) -> str:
    return make_conninfo(runs.dsn, user=role)


def test_a_client_begins_tells_asks_and_a_worker_executes(granted: Runs) -> None:
    client = Client()
    with psycopg.connect(dsn_of(granted, "flows_client"), autocommit=True) as tx:
        key = client.begin_tx(tx, greet, "Ada", idempotency_key="Ada", tags=["first"])
        assert client.begin_tx(tx, greet, "Ada", idempotency_key="Ada") == key
        (other,) = client.begin_many_tx(tx, greet, ["Eve"])
        client.schedule_tx(tx, greet, "Tim", "hourly", every(timedelta(hours=1)), run_now=True)
        client.pause_schedule_tx(tx, "hourly")
        client.resume_schedule_tx(tx, "hourly")
        granted.connection.execute("UPDATE flows.schedules SET next_run_at = now()")
        with Worker(registry, dsn_of(granted, "flows_worker")) as worker:
            while worker.process_one():
                pass
            client.publish_event_tx(tx, key, "Told", "Hello")
            client.publish_event_tx(tx, key, "Told", "Welcome")
            while worker.process_one():
                pass
        assert client.get_run_status_tx(tx, key).status == "completed"
        assert client.get_run_output_tx(tx, key) == "Hello Ada"
        client.cancel_run_tx(tx, other)
        assert client.get_run_status_tx(tx, other).status == "cancelled"
        client.delete_schedule_tx(tx, "hourly")
        running = client.begin_tx(tx, greet, "Joe")
        granted.connection.execute(
            "UPDATE flows.runs SET status = 'running' WHERE finished_at IS NULL"
        )
        client.cancel_run_tx(tx, running)


def test_a_supervised_worker_and_the_scheduler_need_no_more(granted: Runs) -> None:
    registry = Registry()
    ticked = registry.workflow("tick")(lambda wf: "tock")
    granted.client.schedule_tx(
        granted.connection, ticked, None, "hourly", every(timedelta(hours=1))
    )
    granted.connection.execute("UPDATE flows.schedules SET next_run_at = now()")
    key = granted.begin(ticked)
    granted.dsn, owner = dsn_of(granted, "flows_worker"), granted.dsn
    granted.start(registry)
    granted.dsn = owner
    granted.wait_for(key, "completed")
    count = "SELECT count(*) FROM flows.runs WHERE status = 'completed'"
    wait_until(lambda: granted.rows(count) == [(2,)], what="the schedule has fired")


def test_a_reader_reads(granted: Runs) -> None:
    key = granted.begin(greet, "Ada")
    dsn = dsn_of(granted, "flows_reader")
    done = flows("runs", "show", str(key), "--dsn", dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert "queued" in done.stdout
    assert flows("schedules", "list", "--dsn", dsn).returncode == 0
    with psycopg.connect(dsn) as tx:
        assert Client().get_run_status_tx(tx, key).status == "queued"


FORBIDDEN: dict[str, list[str]] = {
    "flows_client": [
        "SELECT input_json FROM flows.runs",
        "SELECT output_json FROM flows.steps",
        "SELECT * FROM flows.random",
        "SELECT * FROM flows.workers",
        "UPDATE flows.runs SET claim = claim + 1",
        "UPDATE flows.runs SET output_json = '1'",
        "UPDATE flows.runs SET worker_id = NULL",
        "INSERT INTO flows.steps DEFAULT VALUES",
        "DELETE FROM flows.runs",
        "DELETE FROM flows.events",
        "DROP TABLE flows.runs",
        "CREATE TABLE flows.mine (n int)",
    ],
    "flows_worker": [
        "DELETE FROM flows.runs",
        "DELETE FROM flows.schedules",
        "TRUNCATE flows.steps",
        "INSERT INTO flows.migrations VALUES (99, 'mine')",
        "ALTER TABLE flows.runs ADD COLUMN mine int",
        "CREATE TABLE flows.mine (n int)",
    ],
    "flows_reader": [
        "INSERT INTO flows.runs DEFAULT VALUES",
        "UPDATE flows.runs SET status = 'failed'",
        "DELETE FROM flows.runs",
        "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR KEY SHARE",
        "CREATE TABLE flows.mine (n int)",
    ],
}


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_is_not_for_is_refused(granted: Runs, role: str) -> None:
    with psycopg.connect(dsn_of(granted, role), autocommit=True) as connection:
        for statement in FORBIDDEN[role]:
            with pytest.raises(pg.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_command_line_says_what_is_missing(granted: Runs) -> None:
    key: RunKey = granted.begin(greet, "Ada")
    reader, client = dsn_of(granted, "flows_reader"), dsn_of(granted, "flows_client")
    worker = dsn_of(granted, "flows_worker")
    granted.connection.execute("CREATE ROLE flows_stranger LOGIN")
    stranger = dsn_of(granted, "flows_stranger")
    wanted: list[tuple[str, ...]] = [
        ("begin", "greet", '"Eve"', "--dsn", reader),
        ("publish", str(key), "Told", "--dsn", reader),
        ("schedules", "delete", "hourly", "--dsn", worker),
        ("runs", "show", str(key), "--dsn", client),
        ("runs", "show", str(key), "--dsn", stranger),
        ("begin", "greet", "--dsn", stranger),
        ("migrate", "--dsn", stranger),
    ]
    try:
        for arguments in wanted:
            code, error = refused(*arguments)
            assert code == 5, error
            first, remedy = error.splitlines()
            assert first.startswith("permission denied"), error
            assert remedy == "connect as a role that may, or have the owner grant what is missing"
    finally:
        granted.connection.execute("DROP ROLE flows_stranger")
