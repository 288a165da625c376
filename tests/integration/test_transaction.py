"""`wf.tx` with commit="attempt": business writes and memos stand or fall together."""

from __future__ import annotations

import contextlib
import logging
from datetime import timedelta

import psycopg
import pytest

from flows import Context, Registry, RetryPolicy, RunRetryPolicy
from flows.clock import monotonic
from tests.integration.ledger import STEPS, enter, entries, execute
from tests.running import Gate, Runs
from tests.waiting import wait_for_lock_wait, wait_until

pytestmark = pytest.mark.usefixtures("ledger")


def test_writes_are_committed_with_the_outcome_and_not_before(runs: Runs) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.execute("step/v1", lambda: enter(wf, "in a step"))
        enter(wf, "outside")
        gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    assert entries(runs) == []
    assert runs.rows(STEPS) == []
    gate.open()
    runs.wait_for(key, "completed")
    assert entries(runs) == ["in a step", "outside"]
    assert runs.rows(STEPS) == [("step/v1", "completed")]


def test_writes_are_committed_with_a_failure(runs: Runs) -> None:
    def fails(wf: Context) -> None:
        wf.execute("step/v1", lambda: enter(wf, "in a step"))
        enter(wf, "outside")
        raise ValueError("after all")

    key = execute(runs, fails)
    assert runs.error(key).startswith("ValueError: after all")
    assert entries(runs) == ["in a step", "outside"]
    assert runs.rows(STEPS) == [("step/v1", "completed")]


def test_writes_are_committed_with_a_yield(runs: Runs) -> None:
    def sleeps(wf: Context) -> None:
        wf.execute("step/v1", lambda: enter(wf, "in a step"))
        wf.sleep("cooldown/v1", timedelta(hours=1))

    key = execute(runs, sleeps)
    assert runs.status(key).status == "sleeping"
    assert entries(runs) == ["in a step"]


def test_memos_from_before_the_transaction_are_committed_too(runs: Runs) -> None:
    def function(wf: Context) -> None:
        wf.execute("before/v1", lambda: 1)
        enter(wf, "outside")
        wf.execute("after/v1", lambda: 2)

    execute(runs, function)
    assert runs.rows(STEPS) == [("after/v1", "completed"), ("before/v1", "completed")]


def test_the_run_is_locked_by_its_transaction_where_the_claim_holds(runs: Runs) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    with pytest.raises(psycopg.errors.LockNotAvailable):
        runs.rows(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR NO KEY UPDATE NOWAIT"
        )
    gate.open()
    runs.wait_for(key, "completed")


def test_an_attempt_that_has_lost_its_claim_cannot_open_a_transaction(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    def taken(wf: Context) -> None:
        wf.execute("before/v1", lambda: 1)
        runs.connection.execute("UPDATE flows.runs SET claim = claim + 1")
        enter(wf, "too late")

    key = execute(runs, taken)
    assert entries(runs) == []
    assert (runs.status(key).status, runs.status(key).attempts) == ("running", 0)
    assert "taken by another worker" in caplog.text


def test_without_the_transaction_nothing_is_held(runs: Runs) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        assert wf.tx is not None
        gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    [(sessions,)] = runs.rows(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state LIKE 'idle in transaction%%'"
    )
    assert sessions == 0
    gate.open()
    runs.wait_for(key, "completed")


def test_a_failed_statement_that_is_not_contained_fails_the_run(runs: Runs) -> None:
    def aborts(wf: Context) -> str:
        wf.execute("before/v1", lambda: 1)
        enter(wf, "undone")
        wf.execute("within/v1", lambda: 2)
        try:
            wf.tx.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            return "as if nothing had happened"
        return "unexpected"

    key = execute(runs, aborts)
    assert "ContextError: a statement on wf.tx had failed" in runs.error(key)
    assert entries(runs) == []
    # What was done before the transaction stays, what was done within is undone with it.
    assert runs.rows(STEPS) == [("before/v1", "completed")]


def test_an_aborted_transaction_keeps_the_error_of_the_workflow(runs: Runs) -> None:
    def aborts(wf: Context) -> None:
        enter(wf, "undone")
        wf.tx.execute("SELECT 1 / 0")

    key = execute(runs, aborts)
    assert runs.error(key).startswith("psycopg.errors.DivisionByZero: division by zero")
    assert entries(runs) == []


def test_an_aborted_transaction_does_not_yield(runs: Runs) -> None:
    def aborts(wf: Context) -> None:
        try:
            wf.tx.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            wf.sleep("cooldown/v1", timedelta(hours=1))

    key = execute(runs, aborts)
    assert "ContextError: a statement on wf.tx had failed" in runs.error(key)
    assert runs.rows("SELECT count(*) FROM flows.waits") == [(0,)]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_commit_that_postgres_refuses_is_a_failure_that_keeps_earlier_memos(
    runs: Runs, attempts: int
) -> None:
    calls: list[str] = []

    def refused(wf: Context) -> None:
        wf.execute("before/v1", lambda: calls.append("before"))
        wf.tx.execute("INSERT INTO items VALUES ('of no order')")
        wf.execute("within/v1", lambda: calls.append("within"))

    key = execute(runs, refused, run_retry=RunRetryPolicy(max_attempts=attempts))
    status = runs.status(key)
    assert (status.status, status.attempts) == ("failed", attempts)
    assert "ForeignKeyViolation" in runs.error(key)
    assert calls == ["before"] + ["within"] * attempts
    assert runs.rows(STEPS) == [("before/v1", "completed")]


def test_memos_that_wait_for_the_committer_survive_a_refused_commit(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate, registry = Gate(), Registry()

    @registry.workflow("demo", concurrency=2)
    def demo(wf: Context, is_refused: bool) -> None:
        if not is_refused:
            gate.pass_through()
            return
        wf.execute("before/v1", lambda: 1)
        wf.tx.execute("INSERT INTO items VALUES ('of no order')")

    other = runs.begin(demo, False)
    runs.start(registry)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as holder:
        holder.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR NO KEY UPDATE"
        )
        gate.open()
        # The committer has its hands full with the other run, so this one's memo waits.
        wait_for_lock_wait(runs.dsn)
        refused = runs.begin(demo, True)
        wait_until(lambda: "failed (attempt 1" in caplog.text, what="the commit was refused")
    runs.wait_for(other, "completed")
    runs.wait_for(refused, "failed")
    assert runs.rows(STEPS) == [("before/v1", "completed")]


def test_the_writes_of_a_failed_try_are_undone_before_the_next(runs: Runs) -> None:
    tries: list[int] = []

    def function(wf: Context) -> None:
        enter(wf, "before")
        wf.execute("step/v1", lambda: step(wf), retry=RetryPolicy(max_retries=2))

    def step(wf: Context) -> None:
        tries.append(1)
        enter(wf, f"try {len(tries)}")
        if len(tries) < 3:
            enter(wf, "the same in each")
            raise ValueError("not yet")

    key = execute(runs, function)
    assert runs.status(key).status == "completed"
    assert entries(runs) == ["before", "try 3"]


def test_a_step_that_fails_leaves_the_transaction_usable(runs: Runs) -> None:
    def function(wf: Context) -> str:
        enter(wf, "before")
        for step in (lambda: wf.tx.execute("SELECT 1 / 0"), lambda: enter(wf, "before")):
            with pytest.raises(psycopg.Error):
                wf.execute(f"step {step.__code__.co_firstlineno} {step.__code__.co_names}", step)
        enter(wf, "after")
        return "went on"

    key = execute(runs, function)
    assert runs.output(key) == "went on"
    assert entries(runs) == ["after", "before"]
    assert {status for _, status in runs.rows(STEPS)} == {"failed"}


def test_a_step_that_hides_a_failed_statement_fails(runs: Runs) -> None:
    def hides(wf: Context) -> str:
        enter(wf, "undone")
        try:
            wf.tx.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            return "as if nothing had happened"
        return "unexpected"

    key = execute(runs, lambda wf: wf.execute("step/v1", lambda: hides(wf)))
    assert "ContextError: the step returned although a statement" in runs.error(key)
    assert entries(runs) == []
    assert runs.rows(STEPS) == [("step/v1", "failed")]


def test_a_step_that_takes_too_long_leaves_no_writes(runs: Runs) -> None:
    def slow(wf: Context) -> None:
        enter(wf, "too late")
        late_s = monotonic() + 0.03
        wait_until(lambda: monotonic() >= late_s, what="too much time has passed")

    retry = RetryPolicy(step_timeout=timedelta(milliseconds=20))
    key = execute(runs, lambda wf: wf.execute("step/v1", lambda: slow(wf), retry=retry))
    assert "StepTimeoutError" in runs.error(key)
    assert entries(runs) == []


def test_a_step_that_failed_stays_recorded_when_the_transaction_is_undone(runs: Runs) -> None:
    registry = Registry()

    def fragile() -> None:
        raise ValueError("not this way")

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        wf.execute("kept/v1", lambda: 1)
        with contextlib.suppress(ValueError):
            wf.execute("fragile/v1", fragile)
        wf.tx.execute("SELECT 1/0")

    key = runs.execute(registry, demo)
    assert runs.error(key).startswith("psycopg.errors.DivisionByZero")
    assert runs.rows(STEPS) == [("fragile/v1", "failed")]
