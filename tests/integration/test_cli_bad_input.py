"""What commands of operators are given wrongly: one line or two, an exit code, and no traceback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from flows import Client
from flows.supervisor.exits import ExitCode
from tests.integration.command import flows, refused, start_flows
from tests.postgres import new_database
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "demo_0:0190f0f0-0000-7000-8000-000000000000"
COMMANDS: list[tuple[str, ...]] = [
    ("runs", "list"),
    ("runs", "show", KEY),
    ("runs", "cancel", KEY),
    ("runs", "retry", "--workflow", "demo", "--yes"),
    ("runs", "fork", KEY, "--from-step", "a/v1"),
    ("stats",),
    ("prune", "--older-than", "1d", "--yes"),
]
CHANGING = [command for command in COMMANDS if command[-1] == "--yes"]


def named(command: tuple[str, ...]) -> str:
    return " ".join(command[:2])


@pytest.fixture(scope="module")
def own_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A database with a failed run of long ago, and a role that may only look."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            Client().begin_tx(connection, "demo")
            connection.execute(
                "UPDATE flows.runs SET status = 'failed', error_text = 'why', created_at ="
                " now() - interval '9 days', finished_at = now() - interval '9 days'"
            )
            connection.execute("DROP ROLE IF EXISTS flows_test_looker")
            connection.execute("CREATE ROLE flows_test_looker LOGIN")
            connection.execute("GRANT USAGE ON SCHEMA flows TO flows_test_looker")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA flows TO flows_test_looker")
        yield dsn
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP OWNED BY flows_test_looker")
            connection.execute("DROP ROLE flows_test_looker")


@pytest.mark.parametrize("command", [*COMMANDS, ("doctor",)], ids=named)
def test_a_database_that_is_not_there_and_a_dsn_that_is_none(command: tuple[str, ...]) -> None:
    code, error = refused(*command, "--dsn", "postgresql://127.0.0.1:1/nowhere")
    assert (code, error[:30]) == (ExitCode.DATABASE, "cannot connect to the database")
    code, error = refused(*command, "--dsn", "postgresql://:x:y@[/secret")
    assert (code, "secret" in error) == (ExitCode.CONFIG, False)


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_a_schema_without_tables_and_a_name_that_is_none(
    command: tuple[str, ...], own_dsn: str
) -> None:
    code, error = refused(*command, "--dsn", own_dsn, "--schema", "nowhere")
    assert code == ExitCode.SCHEMA
    assert error.endswith("run: flows migrate --schema nowhere\n")
    code, _ = refused(*command, "--dsn", own_dsn, "--schema", "no;where")
    assert code == ExitCode.CONFIG


@pytest.mark.parametrize("command", COMMANDS, ids=named)
def test_tables_of_an_older_version(
    command: tuple[str, ...], server_dsn: str, migrated_template: str
) -> None:
    with new_database(server_dsn, template=migrated_template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM flows.migrations WHERE version > 1")
        code, error = refused(*command, "--dsn", dsn)
    assert code == ExitCode.SCHEMA
    assert "is of version 1, this code needs" in error


@pytest.mark.parametrize("command", CHANGING, ids=named)
def test_a_role_that_may_only_look_is_told_so_and_nothing_is_changed(
    command: tuple[str, ...], own_dsn: str
) -> None:
    done = flows(*command, "--dsn", make_conninfo(own_dsn, user="flows_test_looker"))
    assert done.returncode == ExitCode.DATABASE
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    with psycopg.connect(own_dsn) as connection:
        assert connection.execute("SELECT status FROM flows.runs").fetchall() == [("failed",)]


@pytest.mark.parametrize("command", [("runs", "list"), ("stats",), ("doctor",)], ids=named)
def test_a_role_that_may_only_look_can_look(command: tuple[str, ...], own_dsn: str) -> None:
    done = flows(*command, "--dsn", make_conninfo(own_dsn, user="flows_test_looker"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [("runs", "list"), ("stats",), ("doctor",)], ids=named)
def test_a_reader_that_has_gone_is_no_error(command: tuple[str, ...], own_dsn: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start_flows(*command, "--dsn", own_dsn, stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, b"")
