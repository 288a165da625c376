"""`flows migrate`: says what it did, does it once, and can be done by hand instead."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows.config import DBConfig
from flows.schema import (
    CITUS_SCHEMA_SQL,
    SCHEMA_VERSION,
    check_version,
    citus_schema_sql_for,
    schema_sql_for,
)
from flows.supervisor.exits import ExitCode
from tests.citus import not_on_citus
from tests.integration.command import flows, refused, start_flows, told
from tests.waiting import DEADLINE_S, wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def weak_dsn(dsn: str) -> Iterator[str]:
    """The database, used as a role that may do nothing."""
    role = f"weak_{os.getpid()}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        yield f"{dsn} options='-c role={role}'"
        connection.execute(f"DROP ROLE {role}".encode())


def test_each_version_is_a_line_and_doing_it_again_says_so(dsn: str) -> None:
    applied = told("migrate", "--dsn", dsn, "--schema", "other")
    assert applied.splitlines() == [
        f"applied version {version} to schema 'other' of the database of --dsn"
        for version in range(1, SCHEMA_VERSION + 1)
    ]
    with psycopg.connect(dsn) as connection:
        check_version(connection, DBConfig(schema="other"))
    again = told("migrate", "--schema", "other", env={"DATABASE_URL": dsn})
    assert again == (
        f"schema 'other' of the database of DATABASE_URL is up to date: version {SCHEMA_VERSION}\n"
    )


def test_the_printed_schema_does_the_same_by_hand(dsn: str) -> None:
    printed = told("migrate", "--print", "--schema", "by_hand")
    assert printed == schema_sql_for("by_hand")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(printed.encode())
        check_version(connection, DBConfig(schema="by_hand"))


@not_on_citus("there is one")
def test_to_distribute_without_citus_is_refused_and_creates_nothing(dsn: str) -> None:
    code, error = refused("migrate", "--citus", "--dsn", dsn)
    assert code == ExitCode.SCHEMA
    assert "no Citus to distribute the tables over; run CREATE EXTENSION citus" in error
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('flows')").fetchone() == (None,)


@not_on_citus("there is one")
def test_the_text_that_distributes_says_that_there_is_no_citus(flows_dsn: str) -> None:
    with (
        psycopg.connect(flows_dsn) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="this database has no Citus"),
    ):
        connection.execute(CITUS_SCHEMA_SQL)


def test_what_distributes_is_printed_behind_the_schema() -> None:
    printed = told("migrate", "--print", "--citus", "--schema", "other")
    assert printed == schema_sql_for("other") + "\n" + citus_schema_sql_for("other")


def test_a_newer_schema_is_left_alone(flows_dsn: str) -> None:
    with psycopg.connect(flows_dsn) as connection:
        connection.execute("INSERT INTO flows.migrations (version, name) VALUES (99, 'later')")
    code, error = refused("migrate", "--dsn", flows_dsn)
    assert code == ExitCode.SCHEMA
    assert "of version 99, newer than this code" in error
    assert "install a newer pgflows" in error


def test_a_role_that_may_not_is_told_what_is_missing(weak_dsn: str) -> None:
    code, error = refused("migrate", "--dsn", weak_dsn)
    assert code == ExitCode.DATABASE
    assert error.startswith("permission denied for database ")
    assert "connect as a role that may" in error


def test_ctrl_c_ends_the_wait_for_another_migration(dsn: str) -> None:
    from flows import schema  # noqa: PLC0415  the lock's key is nobody else's business

    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (schema._LOCK_KEY,))
        process = start_flows("migrate", "--dsn", dsn)
        wait_for_lock_wait(dsn)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert (out, err.strip()) == (b"", b"")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('flows')").fetchone() == (None,)


def test_a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    with os.fdopen(write_fd, "wb") as pipe:
        done = flows("migrate", "--print", stdout=pipe)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    for arguments in (("db", "stop"), ("runs", "--help")):
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            code, error = refused(*arguments, cwd=tmp_path, stdout=full)
        assert code == ExitCode.FAILED
        assert error == "the output cannot be written: No space left on device\n"
