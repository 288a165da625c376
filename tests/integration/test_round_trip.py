"""Statements in one round trip: what is done of them, in whatever state the session is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from flows import database, round_trip, sql
from flows.round_trip import Query, execute
from flows.shard import shard_values_for_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.database import Connection
    from tests.running import Runs

TOO_LONG = "x" * 8000
"""For a notification."""

(SHARD,) = shard_values_for_workflow("demo", 1)


@pytest.fixture(params=["prepared", "through a pooler"])
def connection(runs: Runs, request: pytest.FixtureRequest) -> Iterator[Connection]:
    with database.connect(runs.dsn, "test round trip") as connection:
        if request.param != "prepared":
            connection.prepare_threshold = None
        yield connection


@pytest.fixture
def heard(runs: Runs) -> Iterator[psycopg.Connection]:
    with psycopg.connect(runs.dsn, autocommit=True) as listener:
        listener.execute("LISTEN said")
        yield listener


def said(listener: psycopg.Connection) -> list[str]:
    """Return what was told, in order: it is heard if what it belongs to is committed."""
    listener.execute("NOTIFY said, 'end'")
    notifications = [one.payload for one in listener.notifies(timeout=5, stop_after=1)]
    notifications += [one.payload for one in listener.notifies(timeout=0)]
    assert notifications.pop() == "end"
    return notifications


def say(payload: str) -> Query:
    return "notify", {"channel": "said", "payload": payload}


def test_a_transaction_comes_first_and_the_answers_in_order(
    runs: Runs, connection: Connection, heard: psycopg.Connection
) -> None:
    run_id = runs.begin("demo", 1).run_id
    peek: Query = ("peek_queue", {"shard": SHARD, "now": datetime(2000, 1, 1, tzinfo=UTC)})
    claim: Query = (
        "claim_runs",
        {
            "shard": SHARD, "limit": 1, "from_s": None, "worker_id": uuid4(), "now": None,
            "run_timeout_s": 1.5,
        },
    )  # fmt: skip
    told, looked, claimed = execute(connection, "flows", [peek, claim], [say("first")])
    assert said(heard) == ["first"]
    assert told.rowcount == looked.rowcount == claimed.rowcount == 1
    ((due_s,),) = looked.fetchall()
    assert isinstance(due_s, float)
    assert due_s > 0
    ((found, number, attempts, is_suspect, *rest),) = claimed.fetchall()
    payload, no_bytes, _, left_s = rest[:4]
    assert (found, number, attempts, is_suspect) == (str(run_id), 1, 0, False)
    assert (payload, no_bytes) == (b"1", None)
    assert 0 < left_s <= 1.5


def test_nothing_is_nothing(connection: Connection) -> None:
    assert list(execute(connection, "flows", [])) == []
    (none,) = execute(connection, "flows", [("peek_queue", {"shard": SHARD, "now": None})])
    assert (none.rowcount, none.fetchall()) == (0, [])


def test_all_of_a_transaction_is_undone_and_what_follows_is_not_done(
    connection: Connection, heard: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="payload string too long"):
        execute(connection, "flows", [say("after")], [say("before"), say(TOO_LONG)])
    assert said(heard) == []
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    execute(connection, "flows", [say("again")])
    assert said(heard) == ["again"]


def test_a_transaction_stands_whatever_comes_of_what_follows(
    connection: Connection, heard: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        execute(connection, "flows", [say(TOO_LONG)], [say("kept")])
    assert said(heard) == ["kept"]
    execute(connection, "flows", [], [say("again")])
    assert said(heard) == ["again"]


def test_a_session_that_has_forgotten_is_taught_anew_and_all_is_done_once(
    connection: Connection, heard: psycopg.Connection
) -> None:
    execute(connection, "flows", [say("before")])
    connection.execute("DEALLOCATE ALL")
    execute(connection, "flows", [say("after")], [say("first"), say("second")])
    assert said(heard) == ["before", "first", "second", "after"]


def test_what_cannot_be_sent_is_refused_before_anything_is(
    connection: Connection, heard: psycopg.Connection
) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        execute(connection, "flows", [say("a\0b")])
    execute(connection, "flows", [say("next")])
    assert said(heard) == ["next"]


def test_a_session_that_is_lost_is_told_as_such(runs: Runs, connection: Connection) -> None:
    execute(connection, "flows", [say("before")])
    pid = connection.info.backend_pid
    runs.connection.execute("SELECT pg_terminate_backend(%s::int, 5000)", (pid,))
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError) as error:
            execute(connection, "flows", [], [say("after")])
        assert database.is_lost(error.value)
    assert connection.broken


def test_only_what_a_session_has_not_prepared_yet_is_prepared(runs: Runs) -> None:
    with database.connect(runs.dsn, "test round trip") as connection:
        names = (
            "SELECT name FROM pg_prepared_statements WHERE from_sql IS FALSE AND name ~ '^flows'"
        )
        for _ in range(2):
            execute(connection, "flows", [say("one")])
            assert connection.execute(names).fetchall() == [("flows_notify",)]
        # As after an error, when nobody knows.
        round_trip.forget(connection)
        execute(connection, "flows", [say("another")])
        assert connection.execute(names).fetchall() == [("flows_notify",)]
        prepared = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
        assert (sql.numbered("notify", "flows")[0].decode(),) in prepared
