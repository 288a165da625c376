"""Savepoints of the workflow's own, `with wf.tx.transaction():`, and commit="step"."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import psycopg
import pytest

from flows import Context, ContextError, Registry, RunRetryPolicy
from tests.integration.ledger import STEPS, enter, entries, execute
from tests.running import Gate, Runs

pytestmark = pytest.mark.usefixtures("ledger")

LOCKED_NOWHERE = "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR UPDATE NOWAIT"


def test_a_block_that_fails_is_undone_and_nothing_else(runs: Runs) -> None:
    def function(wf: Context) -> str:
        enter(wf, "before")
        with contextlib.suppress(psycopg.errors.UniqueViolation), wf.tx.transaction():
            enter(wf, "undone")
            enter(wf, "before")
        with wf.tx.transaction():
            enter(wf, "kept")
        with wf.tx.transaction():
            enter(wf, "taken back")
            raise psycopg.Rollback
        return "went on"

    assert runs.output(execute(runs, function)) == "went on"
    assert entries(runs) == ["before", "kept"]


def test_blocks_stand_in_each_other_and_in_steps(runs: Runs) -> None:
    def step(wf: Context) -> None:
        with wf.tx.transaction():
            enter(wf, "outer")
            with contextlib.suppress(ValueError), wf.tx.transaction():
                enter(wf, "inner")
                raise ValueError("inner")

    execute(runs, lambda wf: wf.execute("step/v1", lambda: step(wf)))
    assert entries(runs) == ["outer"]
    assert runs.rows(STEPS) == [("step/v1", "completed")]


def test_a_step_in_a_block_that_is_undone_is_undone_with_it(runs: Runs) -> None:
    calls: list[str] = []

    def function(wf: Context) -> None:
        for is_undone in (True, False):
            with wf.tx.transaction():
                wf.execute("step/v1", lambda: calls.append(enter(wf, "written")))
                if is_undone:
                    raise psycopg.Rollback

    assert runs.status(execute(runs, function)).status == "completed"
    assert calls == ["written", "written"]
    assert entries(runs) == ["written"]


def test_a_step_in_a_block_that_yields_is_executed_again_with_its_writes(runs: Runs) -> None:
    registry, calls = Registry(), []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        with wf.tx.transaction():
            wf.execute("step/v1", lambda: calls.append(enter(wf, "written")))
            wf.wait_for_event("go/v1", "Go")

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "waiting_event"
    assert (entries(runs), runs.rows(STEPS)) == ([], [])
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert (entries(runs), runs.rows(STEPS)) == (["written"], [("step/v1", "completed")])
    assert calls == ["written", "written"]


def test_commit_by_step_is_visible_before_the_run_ends(runs: Runs) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo", commit="step")
    def demo(wf: Context) -> None:
        wf.execute("step/v1", lambda: enter(wf, "in a step"))
        enter(wf, "outside")
        gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    assert entries(runs) == ["in a step"]
    assert runs.rows(STEPS) == [("step/v1", "completed")]
    assert runs.status(key).status == "running"
    gate.open()
    runs.wait_for(key, "completed")
    assert entries(runs) == ["in a step", "outside"]


def test_commit_by_step_holds_nothing_between_steps(runs: Runs) -> None:
    def function(wf: Context) -> None:
        wf.execute("step/v1", lambda: enter(wf, "a"))
        runs.rows(LOCKED_NOWHERE)
        wf.execute("step/v2", lambda: enter(wf, "b"))
        runs.rows(LOCKED_NOWHERE)

    assert runs.status(execute(runs, function, commit="step")).status == "completed"
    assert entries(runs) == ["a", "b"]


def test_what_was_committed_by_step_survives_a_later_failure(runs: Runs) -> None:
    calls: list[str] = []

    def function(wf: Context) -> None:
        wf.execute("step/v1", lambda: calls.append(enter(wf, "kept")))
        wf.tx.execute("SELECT 1 / 0")

    key = execute(runs, function, commit="step", run_retry=RunRetryPolicy(max_attempts=2))
    assert (runs.status(key).status, runs.status(key).attempts) == ("failed", 2)
    assert entries(runs) == ["kept"]
    assert calls == ["kept"]


def test_commit_by_step_takes_what_was_written_before_the_step_along(runs: Runs) -> None:
    def function(wf: Context) -> None:
        enter(wf, "before")
        wf.execute("step/v1", lambda: 1)
        wf.tx.execute("SELECT 1 / 0")

    execute(runs, function, commit="step")
    assert entries(runs) == ["before"]


def test_a_failed_step_commits_nothing(runs: Runs) -> None:
    def function(wf: Context) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero):
            wf.execute("step/v1", lambda: (enter(wf, "undone"), wf.tx.execute("SELECT 1 / 0")))
        wf.execute("step/v2", lambda: enter(wf, "kept"))

    assert runs.status(execute(runs, function, commit="step")).status == "completed"
    assert entries(runs) == ["kept"]
    assert runs.rows(STEPS) == [("step/v1", "failed"), ("step/v2", "completed")]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_step_whose_commit_postgres_refuses_has_failed(runs: Runs, attempts: int) -> None:
    calls: list[int] = []

    def step(wf: Context) -> None:
        calls.append(1)
        wf.tx.execute("INSERT INTO items VALUES ('of no order')")

    key = execute(
        runs,
        lambda wf: wf.execute("step/v1", lambda: step(wf)),
        commit="step",
        run_retry=RunRetryPolicy(max_attempts=attempts),
    )
    status = runs.status(key)
    assert (status.status, status.attempts, len(calls)) == ("failed", attempts, attempts)
    assert "ForeignKeyViolation" in runs.error(key)
    assert runs.rows(STEPS) == [("step/v1", "failed")]


def test_a_workflow_can_catch_a_refused_commit_and_go_on(runs: Runs) -> None:
    def function(wf: Context) -> None:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            wf.execute("step/v1", lambda: wf.tx.execute("INSERT INTO items VALUES ('x')") and None)
        wf.execute("step/v2", lambda: enter(wf, "kept"))
        wf.sleep("cooldown/v1", timedelta(hours=1))

    assert runs.status(execute(runs, function, commit="step")).status == "sleeping"
    assert entries(runs) == ["kept"]
    assert runs.rows(STEPS) == [("step/v1", "failed"), ("step/v2", "completed")]


def test_a_step_whose_commit_was_refused_can_be_executed_again(runs: Runs) -> None:
    calls: list[int] = []

    def step(wf: Context) -> int:
        calls.append(1)
        wf.tx.execute("INSERT INTO items VALUES ('parent')")
        if len(calls) > 1:
            enter(wf, "parent")
        return len(calls)

    def function(wf: Context) -> int:
        for _ in range(2):
            with contextlib.suppress(psycopg.errors.ForeignKeyViolation):
                return wf.execute("step/v1", lambda: step(wf))
        return 0

    assert runs.output(execute(runs, function, commit="step")) == 2
    assert runs.rows(STEPS) == [("step/v1", "completed")]


def test_commit_by_step_inside_a_block_is_refused(runs: Runs) -> None:
    def function(wf: Context) -> None:
        with wf.tx.transaction():
            wf.execute("step/v1", lambda: enter(wf, "undone"))

    key = execute(runs, function, commit="step")
    assert "put the block inside the step" in runs.error(key)
    assert (entries(runs), runs.rows(STEPS)) == ([], [])


def test_a_cursor_of_a_transaction_that_has_ended_is_refused(runs: Runs) -> None:
    def function(wf: Context) -> None:
        cursor = wf.tx.cursor()
        cursor.execute("SELECT 1")
        wf.execute("step/v1", lambda: enter(wf, "kept"))
        with pytest.raises(ContextError, match="take a new one"):
            cursor.execute("INSERT INTO ledger VALUES ('of nobody')")

    assert runs.status(execute(runs, function, commit="step")).status == "completed"
    assert entries(runs) == ["kept"]
