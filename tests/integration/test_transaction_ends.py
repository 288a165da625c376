"""`wf.tx` where user code leaves something open, or does to it what belongs to the engine."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, ContextError, Registry, RetryPolicy
from tests.integration.ledger import ENTRIES, STEPS, enter, entries, execute
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("ledger")

MANY = "SELECT generate_series(1, 300000)"
"""More than sockets take at once."""


def in_block(wf: Context, entry: str) -> Iterator[str]:
    with wf.tx.transaction():
        yield enter(wf, entry)


def test_a_block_of_a_generator_ends_with_the_attempt(runs: Runs) -> None:
    def function(wf: Context) -> None:
        generator = in_block(wf, "undone")
        for _ in generator:
            wf.sleep("s/v1", timedelta(hours=1))

    assert runs.status(execute(runs, function)).status == "sleeping"
    assert entries(runs) == []


def test_a_block_that_is_held_open_fails_its_run_and_holds_up_nobody(runs: Runs) -> None:
    registry, held = Registry(), contextlib.ExitStack()

    @registry.workflow("holds")
    def holds(wf: Context) -> None:
        held.enter_context(wf.tx.transaction())
        enter(wf, "undone")

    @registry.workflow("other")
    def other(wf: Context) -> str:
        return wf.execute("enter/v1", lambda: enter(wf, "kept"))

    key = runs.execute(registry, holds)
    assert "holds open" in runs.error(key)
    assert runs.output(runs.execute(registry, other)) == "kept"
    assert entries(runs) == ["kept"]
    with contextlib.suppress(psycopg.Error):
        held.close()


def test_a_copy_that_is_held_open_fails_its_run(runs: Runs) -> None:
    held = contextlib.ExitStack()

    def function(wf: Context) -> None:
        held.enter_context(wf.tx.cursor().copy("COPY ledger FROM STDIN"))

    key = execute(runs, function)
    assert "holds open" in runs.error(key)
    with contextlib.suppress(psycopg.Error):
        held.close()


@pytest.mark.parametrize("reads", [MANY, "SELECT 1"])
@pytest.mark.parametrize(
    "use",
    [
        lambda wf: enter(wf, "a"),
        lambda wf: wf.execute("enter/v1", lambda: enter(wf, "a")),
        lambda wf: wf.wait_for_event("w/v1", "Never", int),
        lambda wf: wf.tx.transaction().__enter__(),
        lambda wf: wf.client.begin_tx(wf.tx, "demo"),
    ],
)
def test_what_would_wait_for_the_end_of_a_stream_is_refused(
    runs: Runs, use: Callable[[Context], Any], reads: str
) -> None:
    def function(wf: Context) -> None:
        for _ in wf.tx.cursor().stream(reads):
            use(wf)

    assert "wf.tx is busy" in runs.error(execute(runs, function))
    assert entries(runs) == []


def test_what_would_wait_for_the_end_of_a_copy_is_refused(runs: Runs) -> None:
    def function(wf: Context) -> None:
        with wf.tx.cursor().copy("COPY ledger FROM STDIN"):
            enter(wf, "a")

    assert "wf.tx is busy" in runs.error(execute(runs, function))


def test_a_commit_by_step_within_a_stream_is_refused(runs: Runs) -> None:
    def function(wf: Context) -> None:
        for _ in wf.tx.cursor().stream(MANY):
            wf.execute("step/v1", lambda: None)

    assert "wf.tx is busy" in runs.error(execute(runs, function, commit="step"))


def test_a_step_without_statements_may_stand_in_a_stream(runs: Runs) -> None:
    def function(wf: Context) -> int:
        rows = wf.tx.cursor().stream("SELECT generate_series(1, 3)")
        return sum(wf.execute(f"n{n}/v1", lambda n: n * 10, n) for (n,) in rows)

    assert runs.output(execute(runs, function)) == 60


@pytest.mark.parametrize("reads", [MANY, "SELECT generate_series(1, 2)"])
def test_a_stream_that_is_left_early_changes_nothing(runs: Runs, reads: str) -> None:
    def read_one(wf: Context) -> int:
        enter(wf, "before")
        first = next(row for row in wf.tx.cursor().stream(reads))
        enter(wf, "after")
        return int(first[0])

    assert runs.output(execute(runs, lambda wf: wf.execute("read/v1", lambda: read_one(wf)))) == 1
    assert runs.output(execute(runs, lambda wf: len(wf.tx.execute(ENTRIES).fetchall()))) == 2
    assert entries(runs) == ["after", "before"]


@pytest.mark.parametrize("reads", [MANY, "SELECT generate_series(1, 2)"])
def test_a_stream_that_is_kept_ends_with_the_attempt(runs: Runs, reads: str) -> None:
    kept: list[Iterator[Any]] = []

    def function(wf: Context) -> None:
        enter(wf, "kept")
        kept.append(wf.tx.cursor().stream(reads))
        next(kept[0])
        wf.sleep("s/v1", timedelta(hours=1))

    assert runs.status(execute(runs, function)).status == "sleeping"
    assert entries(runs) == ["kept"]
    with pytest.raises(ContextError, match="has ended"):
        next(kept[0])


def test_a_stream_of_a_step_ends_with_the_step(runs: Runs) -> None:
    kept: list[Iterator[Any]] = []

    def step(wf: Context) -> None:
        enter(wf, f"try {len(kept)}")
        kept.append(wf.tx.cursor().stream(MANY))
        next(kept[-1])
        if len(kept) == 1:
            raise ValueError("no")

    def function(wf: Context) -> None:
        wf.execute("step/v1", lambda: step(wf), retry=RetryPolicy(max_retries=1))
        with pytest.raises(ContextError, match="has ended"):
            next(kept[-1])

    assert runs.status(execute(runs, function)).status == "completed"
    assert entries(runs) == ["try 1"]


@pytest.mark.parametrize(
    "statement", ["COMMIT", "  commit and chain", "ROLLBACK", b"abort", "prepare transaction 'x'"]
)
def test_statements_that_end_the_transaction_are_refused(runs: Runs, statement: Any) -> None:
    def function(wf: Context) -> str:
        enter(wf, "kept")
        with pytest.raises(ContextError, match="committed and rolled back by the engine"):
            wf.tx.execute(statement)
        return "went on"

    assert runs.output(execute(runs, function)) == "went on"


def test_savepoints_of_ones_own_are_allowed(runs: Runs) -> None:
    def function(wf: Context) -> None:
        for statement in ("SAVEPOINT mine", "INSERT INTO ledger VALUES ('undone')"):
            wf.tx.execute(statement)
        wf.tx.execute("ROLLBACK TO SAVEPOINT mine")
        enter(wf, "kept")

    assert runs.status(execute(runs, function)).status == "completed"
    assert entries(runs) == ["kept"]


def test_a_closed_cursor_fails_the_run(runs: Runs) -> None:
    def function(wf: Context) -> None:
        cursor = wf.tx.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        cursor.execute("SELECT 2")

    assert "the cursor is closed" in runs.error(execute(runs, function))


def test_a_copy_that_was_begun_like_a_statement_fails_its_step(runs: Runs) -> None:
    def function(wf: Context) -> None:
        wf.execute("step/v1", lambda: wf.tx.execute("COPY ledger FROM STDIN") and None)

    assert "COPY" in runs.error(execute(runs, function))
    assert runs.rows(STEPS) == [("step/v1", "failed")]


def test_a_workflow_that_goes_on_after_such_a_step_fails_too(runs: Runs) -> None:
    def function(wf: Context) -> None:
        with contextlib.suppress(psycopg.Error):
            wf.execute("step/v1", lambda: wf.tx.execute("COPY ledger FROM STDIN") and None)
        wf.execute("step/v2", lambda: enter(wf, "undone"))

    assert "within a COPY" in runs.error(execute(runs, function))
    assert entries(runs) == []


def test_a_step_whose_commit_was_refused_is_tried_again_by_its_policy(runs: Runs) -> None:
    calls: list[int] = []

    def step(wf: Context) -> int:
        calls.append(1)
        wf.tx.execute("INSERT INTO items VALUES ('parent')")
        if len(calls) > 1:
            enter(wf, "parent")
        return len(calls)

    def function(wf: Context) -> int:
        return wf.execute("step/v1", lambda: step(wf), retry=RetryPolicy(max_retries=2))

    assert runs.output(execute(runs, function, commit="step")) == 2
    assert runs.rows(STEPS) == [("step/v1", "completed")]


def test_forgotten_statements_at_a_sleep_interrupt_the_run_and_not_the_worker(runs: Runs) -> None:
    def function(wf: Context) -> str:
        wf.tx.execute("SELECT 1; DEALLOCATE ALL")
        wf.sleep("s/v1", timedelta(0))
        wf.sleep("s/v2", timedelta(milliseconds=1))
        return "done"

    registry = Registry()
    registry.workflow("demo")(function)
    key = runs.begin("demo")
    running = runs.start(registry)
    runs.wait_for(key, "completed")
    running.stop()
