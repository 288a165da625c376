"""Statements in one round trip: what is done of them, in whatever state the session is."""

from __future__ import annotations

import contextlib
import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from flows import Codec, Context, Registry, database, libpq, register_codec
from flows.clock import monotonic
from flows.round_trip import Query, execute
from flows.shard import shard_values_for_workflow
from tests.waiting import wait_for_lock_wait, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.database import Connection
    from tests.running import Runs

TOO_LONG = "x" * 8000
"""For a notification."""

WORKS_ON = "SELECT wait_event, query ~ 'pg_notify' FROM pg_stat_activity WHERE pid = %s"

LONG = "x" * 7000
MORE_THAN_LIBPQ_KEEPS = 20
"""Times as much as it takes for libpq to send what it has: 64 kB."""

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


def test_a_transaction_is_executed_while_it_is_made(runs: Runs) -> None:
    with database.connect(runs.dsn, "test round trip") as connection:

        def made() -> Iterator[Query]:
            yield from [say(LONG)] * MORE_THAN_LIBPQ_KEEPS
            wait_until(
                lambda: runs.rows(WORKS_ON, connection.info.backend_pid) == [("ClientRead", True)],
                what="the server has executed it and waits for more",
            )
            yield say("last")

        told = execute(connection, "flows", [], made())
    assert [answer.rowcount for answer in told] == [1] * (MORE_THAN_LIBPQ_KEEPS + 1)


@pytest.mark.parametrize(
    "error", [psycopg.DataError, ZeroDivisionError, psycopg.errors.InvalidSqlStatementName]
)
@pytest.mark.parametrize("has_forgotten", [False, True])
def test_a_transaction_that_cannot_be_made_to_its_end_is_undone(
    connection: Connection,
    heard: psycopg.Connection,
    error: type[Exception],
    *,
    has_forgotten: bool,
) -> None:
    def made(*, is_whole: bool) -> Iterator[Query]:
        yield say("sent")
        if not is_whole:
            if error is not psycopg.DataError:
                raise error
            yield say("a\0b")
        yield say("behind it")

    execute(connection, "flows", [say("before")])
    for _ in range(2):
        if has_forgotten:
            connection.execute("DEALLOCATE ALL")
        with pytest.raises(error):
            execute(connection, "flows", [say("after")], made(is_whole=False))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert said(heard) == ["before"]
    execute(connection, "flows", [], made(is_whole=True))
    assert said(heard) == ["sent", "behind it"]


@pytest.mark.parametrize("is_new", [False, True])
def test_what_follows_a_transaction_that_was_refused_is_sent_once(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    peek: Query = ("peek_queue", {"shard": SHARD, "now": None})
    calls: list[str] = []

    def count(name: str) -> None:
        function = getattr(libpq, name)

        def counted(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(libpq, name, counted)

    with database.connect(runs.dsn, "test round trip") as connection:
        if not is_new:
            execute(connection, "flows", [], [say("before"), peek])
        count("exchange")
        count("_prepare")
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            execute(connection, "flows", [], [say(TOO_LONG), peek])
        execute(connection, "flows", [], [say("after"), peek])
    assert calls.count("exchange") == 2
    assert is_new or "_prepare" not in calls


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


def test_what_bears_the_name_of_a_statement_and_is_another_is_replaced(
    runs: Runs, heard: psycopg.Connection
) -> None:
    with database.connect(runs.dsn, "test round trip") as connection:
        connection.execute("PREPARE flows_notify (text, text) AS SELECT 'not ours'")
        execute(connection, "flows", [say("one")])
        # As after an error, when nobody knows; and a table may have been altered.
        libpq.doubt(connection)
        execute(connection, "flows", [say("another")])
        libpq.doubt(connection)
        execute(connection, "flows", [say("after")], (say(what) for what in ("third", "fourth")))
        peek: Query = ("peek_queue", {"shard": SHARD, "now": None})
        execute(connection, "flows", [peek])
        with pytest.raises(psycopg.errors.UndefinedTable, match=r"nowhere\.runs"):
            execute(connection, "nowhere", [peek])
        execute(connection, "flows", [peek])
    assert said(heard) == ["one", "another", "third", "fourth", "after"]


def test_a_plan_whose_result_has_other_columns_by_now_is_made_anew(own_runs: Runs) -> None:
    key = str(own_runs.begin("demo", 1).run_id)
    look: Query = ("read_run_status", {"shard": SHARD, "run_id": key})
    with database.connect(own_runs.dsn, "test round trip") as connection:
        execute(connection, "flows", [look])
        own_runs.connection.execute("ALTER TABLE flows.runs ALTER attempts TYPE numeric")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan"):
            execute(connection, "flows", [look])
        (again,) = execute(connection, "flows", [look])
        assert again.rowcount == 1


def test_what_a_statement_cannot_take_is_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.ProgrammingError):
        execute(connection, "flows", [("notify", {"channel": "said", "payload": object()})])


class LooseCodec(Codec):
    """Returns what is nearly bytes."""

    name = "loose"
    storage = "bytea"

    def encode(self, value: Any) -> Any:
        data = bytearray(str(value).encode())
        return memoryview(data) if data.endswith(b"view") else data

    def decode(self, data: bytes, type: Any) -> str:  # noqa: A002
        return bytes(data).decode()


register_codec(LooseCodec())


@pytest.mark.parametrize("has_transaction", [False, True])
@pytest.mark.parametrize("value", ["\xff array", "view"])
def test_what_is_nearly_bytes_is_stored_as_such(
    runs: Runs, *, value: str, has_transaction: bool
) -> None:
    registry = Registry()

    @registry.workflow("demo", codec=LooseCodec())
    def demo(wf: Context, given: str) -> str:
        if has_transaction:
            wf.tx.execute("SELECT 1")
        return wf.execute("step/v1", lambda: given) + value

    key = runs.begin(demo, value)
    runs.execute_due(registry)
    assert runs.output(key) == value + value


@contextlib.contextmanager
def interrupted(runs: Runs) -> Iterator[None]:
    """Send Ctrl-C to this thread once somebody waits for the table of runs, which is locked."""
    main = threading.get_ident()

    def interrupt() -> None:
        wait_for_lock_wait(runs.dsn)
        signal.pthread_kill(main, signal.SIGINT)

    with psycopg.connect(runs.dsn) as holding:
        holding.execute("LOCK TABLE flows.runs IN ACCESS EXCLUSIVE MODE")
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            yield
        interrupting.join()


def test_ctrl_c_ends_a_claim_that_waits_and_the_next_one_is_made(runs: Runs) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf, number: number)
    worker = runs.worker(registry)
    assert not worker.process_one()
    key = runs.begin("demo", 1)
    with interrupted(runs):
        worker.process_one()
    assert worker.process_one()
    assert runs.output(key) == 1
    worker.stop()


def test_ctrl_c_is_heard_while_a_statement_is_prepared(runs: Runs) -> None:
    with database.connect(runs.dsn, "test round trip") as connection:
        connection.execute("SET lock_timeout = '30s'")
        began_s = monotonic()
        with interrupted(runs):
            execute(connection, "flows", [("peek_queue", {"shard": SHARD, "now": None})])
        assert monotonic() - began_s < 25, "it was heard when the wait had ended"
        assert connection.closed
