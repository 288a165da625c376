"""The caller's transaction: used as it is, never committed, never rolled back, never changed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row

from flows import Client, Context, Registry, RunID, RunKey
from flows.errors import FlowsError, RunStateError, UnknownRunError
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

# An application that has used its connection before it imports flows.
EARLY = """
import sys, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("SELECT 1")
    assert "flows" not in sys.modules
    from flows import Client
    Client().begin_many_tx(connection, "echo", [1, 2, 3])
"""
EARLY_ASYNC = """
import asyncio, sys, psycopg
async def begin():
    async with await psycopg.AsyncConnection.connect(sys.argv[1]) as connection:
        await connection.execute("SELECT 1")
        assert "flows" not in sys.modules
        from flows import AsyncClient
        await AsyncClient().begin_many_tx(connection, "echo", [1, 2, 3])
asyncio.run(begin())
"""

client = Client()
registry = Registry()
UNKNOWN = RunKey("echo_0", RunID(UUID("0198c0de-7a11-7f00-8000-000000000000")))


@registry.workflow("echo")
def echo(wf: Context, value: Any) -> Any:
    return value


class Row:
    def __init__(self, **columns: Any) -> None:
        self.columns = columns


@pytest.fixture
def tx(runs: Runs) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the caller's, not in autocommit."""
    with psycopg.connect(runs.dsn) as connection:
        yield connection


def use_every_method(connection: Any) -> None:
    """Call every method of the client once on a connection, and check what it says."""
    key = client.begin_tx(connection, echo, 1)
    _, other = client.begin_many_tx(connection, "echo", [2, 3])
    client.publish_event_tx(connection, key, "Number", {"n": 1})
    assert client.get_run_status_tx(connection, key).status == "queued"
    client.cancel_run_tx(connection, other)
    assert client.get_run_status_tx(connection, other).status == "cancelled"
    with pytest.raises(RunStateError):
        client.get_run_output_tx(connection, key)
    with pytest.raises(RunStateError):
        client.cancel_run_tx(connection, other)
    for call in (client.get_run_status_tx, client.get_run_output_tx, client.cancel_run_tx):
        with pytest.raises(UnknownRunError):
            call(connection, UNKNOWN)
    with pytest.raises(UnknownRunError):
        client.publish_event_tx(connection, UNKNOWN, "Number", 1)


def count(runs: Runs) -> int:
    [(number,)] = runs.rows("SELECT count(*) FROM flows.runs")
    return int(number)


def test_nothing_is_there_before_the_caller_commits(
    tx: psycopg.Connection[Any], runs: Runs
) -> None:
    key = client.begin_tx(tx, echo, 1)
    client.begin_many_tx(tx, echo, [2, 3])
    client.publish_event_tx(tx, key, "Number", 1)
    assert tx.info.transaction_status is TransactionStatus.INTRANS
    assert count(runs) == 0
    tx.commit()
    assert count(runs) == 3


def test_a_rollback_begins_nothing_and_cancels_nothing(
    tx: psycopg.Connection[Any], runs: Runs
) -> None:
    key = runs.begin(echo, 1)
    client.cancel_run_tx(tx, key)
    client.begin_tx(tx, echo, 2)
    tx.rollback()
    assert runs.status(key).status == "queued"
    assert count(runs) == 1
    assert runs.execute_due(registry) == 1


def test_an_event_that_is_rolled_back_wakes_nobody(tx: psycopg.Connection[Any], runs: Runs) -> None:
    waiting = Registry()

    @waiting.workflow("waiting")
    def wait(wf: Context) -> int:
        return wf.wait_for_event("number/v1", "Number", int)

    key = runs.execute(waiting, wait)
    client.publish_event_tx(tx, key, "Number", 1)
    assert client.get_run_status_tx(tx, key).status == "queued"
    tx.rollback()
    assert runs.execute_due(waiting) == 0
    assert runs.status(key).status == "waiting_event"


def test_every_method_works_in_a_transaction(tx: psycopg.Connection[Any], runs: Runs) -> None:
    with tx.transaction():
        use_every_method(tx)
        assert count(runs) == 0
    assert count(runs) == 3


def test_every_method_works_in_autocommit(tx: psycopg.Connection[Any], runs: Runs) -> None:
    tx.autocommit = True
    use_every_method(tx)
    assert tx.info.transaction_status is TransactionStatus.IDLE
    assert tx.autocommit
    assert count(runs) == 3


@pytest.mark.parametrize("factory", [dict_row, namedtuple_row, scalar_row, class_row(Row)])
def test_every_method_works_with_the_callers_row_factory(
    tx: psycopg.Connection[Any], factory: Any
) -> None:
    tx.row_factory = factory
    use_every_method(tx)
    assert tx.row_factory is factory


@pytest.mark.parametrize("cursor_class", [psycopg.ClientCursor, psycopg.RawCursor])
def test_every_method_works_with_the_callers_kind_of_cursor(
    tx: psycopg.Connection[Any], cursor_class: Any
) -> None:
    tx.cursor_factory = cursor_class
    use_every_method(tx)
    assert type(tx.cursor()) is cursor_class


def test_every_method_works_in_a_pipeline(tx: psycopg.Connection[Any], runs: Runs) -> None:
    with tx.pipeline():
        use_every_method(tx)
    tx.commit()
    assert count(runs) == 3


@pytest.mark.parametrize("threshold", [None, 0])
def test_every_method_works_however_statements_are_prepared(
    tx: psycopg.Connection[Any], threshold: int | None
) -> None:
    tx.prepare_threshold = threshold
    for _ in range(2):
        use_every_method(tx)


def test_an_object_with_a_compatible_cursor_will_do(tx: psycopg.Connection[Any]) -> None:
    class Session:
        def cursor(self) -> Any:
            return tx.cursor()

    use_every_method(Session())


def test_an_object_may_give_its_cursor_to_a_block(tx: psycopg.Connection[Any]) -> None:
    class Session:
        @contextlib.contextmanager
        def cursor(self) -> Iterator[Any]:
            with tx.cursor(row_factory=dict_row) as cursor:
                yield cursor

    use_every_method(Session())


@pytest.mark.parametrize("program", [EARLY, EARLY_ASYNC], ids=["threads", "asyncio"])
def test_a_connection_may_be_older_than_the_import_of_flows(program: str, runs: Runs) -> None:
    command = [sys.executable, "-c", program, runs.dsn]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(3,)]


def test_a_run_and_business_rows_stand_or_fall_together(
    tx: psycopg.Connection[Any], runs: Runs
) -> None:
    runs.connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    runs.connection.execute("INSERT INTO orders VALUES (1)")
    client.begin_tx(tx, echo, 1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        tx.execute("INSERT INTO orders VALUES (1)")
    tx.rollback()
    assert count(runs) == 0


@pytest.mark.parametrize(
    "key",
    [
        UNKNOWN,
        str(UNKNOWN),
        tuple(UNKNOWN),
        ("echo_0", "0198c0de-7a11-4f00-8000-00000000abcd"),
        "no key",
        "echo_0:17",
        ("echo_0", "17"),
        ("ec\0ho_0", UNKNOWN.run_id),
        ("ec\ud800ho_0", UNKNOWN.run_id),
        ("echo_0",),
        None,
        5,
    ],
)
def test_a_key_that_leads_nowhere_leaves_the_transaction_usable(
    tx: psycopg.Connection[Any], key: Any
) -> None:
    for call in (client.get_run_status_tx, client.get_run_output_tx, client.cancel_run_tx):
        with pytest.raises(FlowsError):
            call(tx, key)
    with pytest.raises(FlowsError):
        client.publish_event_tx(tx, key, "Number", 1)
    use_every_method(tx)


@pytest.mark.parametrize("name", ["", None, "a\0b", "\ud800", "x" * 1001])
def test_an_event_without_a_usable_name_leaves_the_transaction_usable(
    tx: psycopg.Connection[Any], name: Any
) -> None:
    key = client.begin_tx(tx, echo, 1)
    with pytest.raises(FlowsError, match="name"):
        client.publish_event_tx(tx, key, name, 1)
    with pytest.raises(FlowsError, match=r"\$\[0\]"):
        client.publish_event_tx(tx, key, "Number", [float("inf")])
    use_every_method(tx)
