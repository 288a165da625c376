"""A workbench has a process die in a step: the next drain shows what becomes of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from flows import Context, Registry
from flows.testing import Workbench

registry = Registry()


@registry.workflow("book", max_crashes=2)
def book(wf: Context, amount: int) -> str:
    price = wf.execute("price/v1", lambda: 2 * amount)

    def enter() -> int:
        wf.tx.execute("INSERT INTO ledger VALUES (%s)", (price,))
        return os.getpid()

    pid = wf.execute("enter/v1", enter)
    return "here" if pid == os.getpid() else "elsewhere"


@registry.workflow("quick")
def quick(wf: Context) -> int:
    return sum(wf.execute(f"step {number}", lambda: 1) for number in range(100))


@registry.workflow("numbered")
def numbered(wf: Context, number: int) -> int:
    return wf.execute(f"step {number}", lambda: number)


@registry.workflow("broken")
def broken(wf: Context) -> None:
    wf.execute("exit/v1", lambda: os._exit(7))


@pytest.fixture
def bench(flows_dsn: str) -> Iterator[Workbench]:
    with psycopg.connect(flows_dsn) as connection:
        connection.execute("CREATE TABLE ledger (amount int)")
    with Workbench(flows_dsn, registry) as bench:
        yield bench


def rows(bench: Workbench, query: str) -> list[Any]:
    with bench.client.transaction() as tx:
        return tx.execute(query.encode()).fetchall()


CRASHES = "SELECT cause, step_key, pid FROM flows.crashes"


def test_what_was_not_committed_is_executed_again_and_the_rest_is_not(bench: Workbench) -> None:
    key = bench.client.begin(book, 5)
    assert bench.crash_at("enter/v1") == key
    assert [memo.key for memo in bench.steps(key)] == ["price/v1"]
    assert rows(bench, "SELECT * FROM ledger") == []
    ((cause, step_key, pid),) = rows(bench, CRASHES)
    assert (cause, step_key) == ("SIGKILL", "enter/v1")
    assert pid != os.getpid()
    assert bench.drain() == 1
    assert bench.client.output(key, str) == "here"
    assert rows(bench, "SELECT * FROM ledger") == [(10,)]
    bench.assert_step(key, "price/v1", output=10, calls=1)
    bench.assert_step(key, "enter/v1", output=os.getpid(), calls=2)


def test_what_was_executed_before_is_committed(bench: Workbench) -> None:
    key = bench.client.begin(quick)
    bench.crash_at("step 99", before=True)
    assert [memo.key for memo in bench.steps(key)] == [f"step {number}" for number in range(99)]
    bench.drain()
    assert bench.client.output(key, int) == 100
    assert {bench.calls(key, f"step {number}") for number in range(100)} == {1}


def test_a_process_that_dies_before_the_step_has_not_called_it(bench: Workbench) -> None:
    key = bench.client.begin(book, 5)
    bench.crash_at("enter/v1", before=True)
    assert bench.calls(key, "enter/v1") == 0
    bench.drain()
    bench.assert_step(key, "enter/v1", calls=1)


def test_a_run_whose_processes_die_again_and_again_fails(bench: Workbench) -> None:
    key = bench.client.begin(book, 5)
    bench.crash_at("enter/v1")
    bench.crash_at("enter/v1")
    assert bench.drain() == 0
    assert bench.client.status(key).status == "failed"
    with pytest.raises(AssertionError, match="no run came to it in 0 attempts"):
        bench.crash_at("enter/v1")


def test_runs_before_it_are_executed_on_the_way(bench: Workbench) -> None:
    keys = [bench.client.begin(numbered, number) for number in range(4)]
    with pytest.raises(AssertionError, match="no run came to it in 1 attempts"):
        bench.crash_at("step 3", limit=1)
    assert bench.crash_at("step 3") == keys[3]
    states = [bench.client.status(key).status for key in keys]
    assert states == ["completed", "completed", "completed", "queued"]
    assert bench.drain() == 1


def test_a_step_that_no_run_comes_to_is_told(bench: Workbench) -> None:
    key = bench.client.begin(book, 5)
    with pytest.raises(AssertionError, match="in step 'enter/v2': no run came to it in 1 attempts"):
        bench.crash_at("enter/v2")
    # What its process did is done.
    assert bench.steps(key)[1].output != os.getpid()
    assert bench.calls(key, "enter/v1") == 1
    assert rows(bench, "SELECT count(*) FROM flows.workers WHERE stopped_at IS NULL") == [(0,)]


def test_a_process_that_ends_otherwise_is_told(bench: Workbench) -> None:
    key = bench.client.begin(broken)
    with pytest.raises(AssertionError, match="its process ended with 7"):
        bench.crash_at("book/v1")
    assert bench.client.status(key).status == "queued"


def test_what_fails_in_the_process_is_told(bench: Workbench) -> None:
    with bench.client.transaction() as tx:
        tx.execute("INSERT INTO flows.migrations (version, name) VALUES (99, 'of the future')")
    with pytest.raises(AssertionError, match=r"its process failed:\nTraceback(.|\n)*SchemaError"):
        bench.crash_at("enter/v1")
