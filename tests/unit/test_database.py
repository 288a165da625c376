"""Connection strings, and which errors say nothing about the work."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from flows.database import check_dsn, is_interruption, is_lost, is_transient, parameters
from flows.errors import ConfigError, DatabaseError, EncodeError


def test_our_defaults_fill_in_what_the_dsn_leaves_open() -> None:
    given = conninfo_to_dict(parameters("postgresql://me@host/name?connect_timeout=3", "flows x"))
    assert given["application_name"] == "flows x"
    assert given["connect_timeout"] == "3"
    assert given["keepalives_idle"] == "15"
    assert (given["user"], given["host"], given["dbname"]) == ("me", "host", "name")


def test_a_name_of_the_users_own_is_kept() -> None:
    given = conninfo_to_dict(parameters("application_name=mine", "flows x"))
    assert given["application_name"] == "mine"


@pytest.mark.parametrize("dsn", ["", "dbname=x", "postgresql:///x", "host=/tmp port=5433"])
def test_what_libpq_reads_is_taken(dsn: str) -> None:
    assert check_dsn(dsn) == dsn


@pytest.mark.parametrize(
    "dsn", ["postgresql//me:secret@host", "dbname", "nonsense=secret", "mysql://me:secret@host/x"]
)
def test_what_it_does_not_read_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(ConfigError, match="DSN cannot be read") as caught:
        check_dsn(dsn)
    assert "secret" not in str(caught.value)


LOST = [
    psycopg.OperationalError("server closed the connection unexpectedly"),
    psycopg.InterfaceError("connection already closed"),
    pg.AdminShutdown(),
    pg.CrashShutdown(),
    pg.CannotConnectNow(),
    pg.IdleInTransactionSessionTimeout(),
    pg.ConnectionException(),
]
CONFLICTS = [
    pg.SerializationFailure(),
    pg.DeadlockDetected(),
    pg.InternalError_("could not commit transaction for shard 102020 on at least one active node"),
    pg.InternalError_("failure on connection marked as essential: node-1:5432"),
]
SHORTAGES = [pg.DiskFull()]
PASSING = [
    pg.LockNotAvailable(),
    pg.QueryCanceled(),
    pg.TooManyConnections(),
    pg.UndefinedTable(),
    pg.InvalidSchemaName(),
    pg.ReadOnlySqlTransaction(),
    DatabaseError("cannot connect"),
]
FINAL = [
    pg.UniqueViolation(),
    pg.ForeignKeyViolation(),
    pg.InvalidTextRepresentation(),
    pg.SyntaxError(),
    pg.DivisionByZero(),
    pg.InternalError_("tuple concurrently updated"),
    pg.InsufficientPrivilege(),
    EncodeError("json", "$", "no"),
    ValueError("no"),
]


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_a_lost_session_is_an_interruption(error: Exception) -> None:
    assert is_lost(error)
    assert is_interruption(error)
    assert is_transient(error)


@pytest.mark.parametrize("error", [*CONFLICTS, *SHORTAGES], ids=repr)
def test_a_conflict_or_a_full_disk_is_an_interruption_and_no_lost_session(error: Exception) -> None:
    assert not is_lost(error)
    assert is_interruption(error)
    assert is_transient(error)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_shortage_passes_and_is_no_interruption(error: Exception) -> None:
    assert not is_interruption(error)
    assert is_transient(error)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_anything_else_will_fail_again(error: Exception) -> None:
    assert not is_lost(error)
    assert not is_interruption(error)
    assert not is_transient(error)
