"""Shutting down: what runs may finish, what has not begun goes back, and nothing is counted."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry, RetryPolicy, RunRetryPolicy
from flows.clock import monotonic
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = timedelta(hours=1)
NO_GRACE = {"graceful_shutdown_timeout": timedelta()}


@pytest.fixture
def gate() -> Gate:
    return Gate()


def held(gate: Gate, before: Callable[[Context], Any] = lambda wf: None) -> tuple[Registry, Any]:
    """Return a registry of one workflow that stops at the gate in its first attempt."""
    registry = Registry()
    attempts: list[int] = []

    @registry.workflow("held", run_retry=RunRetryPolicy(max_attempts=2))
    def hold(wf: Context) -> int:
        attempts.append(wf.attempt)
        before(wf)
        if len(attempts) == 1:
            gate.pass_through()
        wf.execute("after/v1", lambda: 1)
        return attempts[-1]

    return registry, hold


def test_a_running_attempt_finishes_within_the_grace_period(runs: Runs, gate: Gate) -> None:
    registry, hold = held(gate)
    key = runs.begin(hold)
    running = runs.start(registry, graceful_shutdown_timeout=timedelta(seconds=10))
    gate.wait_for_arrival()
    running.worker.stop()
    gate.open()
    running.wait_until_ended()
    assert runs.output(key) == 1
    assert runs.rows("SELECT claim, attempts FROM flows.runs") == [(1, 0)]


def test_without_a_limit_the_worker_waits_as_long_as_it_takes(runs: Runs, gate: Gate) -> None:
    registry, hold = held(gate)
    key = runs.begin(hold)
    running = runs.start(registry, graceful_shutdown_timeout=None)
    gate.wait_for_arrival()
    running.worker.stop()
    gate.open()
    running.wait_until_ended()
    assert runs.output(key) == 1


def test_a_retiring_worker_waits_longer_than_its_grace_period(runs: Runs, gate: Gate) -> None:
    registry, hold = held(gate)
    key = runs.begin(hold)
    running = runs.start(registry, **NO_GRACE)
    gate.wait_for_arrival()
    running.worker.retire()
    later = runs.begin(hold)
    wait_until(
        lambda: not any("dispatcher" in each.name for each in threading.enumerate()),
        what="it claims nothing more",
    )
    gate.open()
    running.wait_until_ended()
    assert runs.output(key) == 1
    assert runs.status(key).attempts == 0
    assert runs.status(later).status == "queued"


def test_a_retiring_worker_that_is_stopped_has_its_grace_period(runs: Runs, gate: Gate) -> None:
    registry, hold = held(gate)
    key = runs.begin(hold)
    running = runs.start(registry, **NO_GRACE)
    gate.wait_for_arrival()
    running.worker.retire()
    wait_until(lambda: not running.worker.ready.is_set(), what="it is retiring")
    running.worker.stop()
    running.wait_until_ended()
    assert runs.status(key).status == "queued"
    gate.open()


def test_a_stopping_worker_claims_nothing_more(runs: Runs, gate: Gate) -> None:
    registry, hold = held(gate)
    runs.begin(hold)
    running = runs.start(registry)
    gate.wait_for_arrival()
    running.worker.stop()
    late = runs.begin(hold)
    gate.open()
    running.wait_until_ended()
    assert runs.status(late).status == "queued"
    assert runs.execute_due(registry) == 1


def test_runs_that_were_claimed_and_not_begun_go_back(
    runs: Runs, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    # Only because the worker stops.
    monkeypatch.setattr("flows.dispatcher.PATIENCE_S", 3600.0)

    @registry.workflow("mixed")
    def mixed(wf: Context, is_held: bool) -> None:
        if is_held:
            gate.pass_through()

    # Short runs first: the worker learns to claim many ahead of its one executor.
    runs.client.begin_many_tx(runs.connection, mixed, [False] * 300 + [True] + [False] * 20)
    running = runs.start(registry)
    gate.wait_for_arrival()
    claimed = "SELECT count(*) FROM flows.runs WHERE status = 'running'"
    wait_until(lambda: runs.rows(claimed)[0][0] > 1, what="runs wait for the executor")
    running.worker.stop()
    wait_until(lambda: runs.rows(claimed)[0][0] == 1, what="they are given back")
    gate.open()
    running.wait_until_ended()
    states = runs.rows("SELECT status, max(attempts) FROM flows.runs GROUP BY 1 ORDER BY 1")
    assert [status for status, _ in states] == ["completed", "queued"]
    assert {attempts for _, attempts in states} == {0}
    before = runs.rows("SELECT count(*) FROM flows.runs WHERE status = 'queued'")[0][0]
    assert runs.execute_due(registry) == before


@pytest.mark.parametrize(
    "before",
    [
        lambda wf: None,
        lambda wf: wf.execute("before/v1", lambda: 1),
        lambda wf: wf.tx.execute("INSERT INTO ledger VALUES (1)"),
    ],
    ids=["at first", "after a step", "in a transaction"],
)
def test_an_attempt_over_the_grace_period_is_taken_up_by_the_next_worker(
    runs: Runs, gate: Gate, before: Callable[[Context], Any]
) -> None:
    runs.connection.execute("CREATE TABLE ledger (n int)")
    registry, hold = held(gate, before)
    key = runs.begin(hold)
    running = runs.start(registry, **NO_GRACE)
    gate.wait_for_arrival()
    running.worker.stop()
    running.wait_until_ended()
    status = runs.status(key)
    assert (status.status, status.attempts, status.error) == ("queued", 0, None)
    assert runs.rows("SELECT count(*) FROM ledger") == [(0,)]
    # It works to no avail now, and goes on beside its successor: the fence decides.
    assert runs.execute_due(registry) == 1
    gate.open()
    assert runs.output(key) == 1
    assert runs.status(key).attempts == 0
    [(entries,)] = runs.rows("SELECT count(*) FROM ledger")
    assert entries <= 1


def test_an_attempt_over_the_grace_period_ends_at_its_next_primitive(
    runs: Runs, gate: Gate
) -> None:
    registry = Registry()
    ended: list[BaseException] = []
    over = Gate()
    over.open()

    @registry.workflow("held")
    def hold(wf: Context) -> None:
        gate.pass_through()
        try:
            wf.execute("after/v1", lambda: 1)
        except BaseException as error:
            ended.append(error)
            over.pass_through()
            raise

    key = runs.begin(hold)
    running = runs.start(registry, **NO_GRACE)
    gate.wait_for_arrival()
    running.worker.stop()
    running.wait_until_ended()
    gate.open()
    over.wait_for_arrival()
    assert not isinstance(ended[0], Exception)
    assert (runs.status(key).status, runs.status(key).attempts) == ("queued", 0)
    assert runs.rows("SELECT count(*) FROM flows.steps") == [(0,)]


def test_a_backoff_of_a_step_ends_with_the_grace_period(runs: Runs) -> None:
    registry = Registry()
    asked = Gate()
    asked.open()

    def backoff(failed: int) -> timedelta:
        asked.pass_through()
        return HOUR

    def fail() -> None:
        raise ValueError("once")

    @registry.workflow("patient")
    def patient(wf: Context) -> None:
        wf.execute("step/v1", fail, retry=RetryPolicy(1, backoff))

    key = runs.begin(patient)
    running = runs.start(registry, **NO_GRACE)
    asked.wait_for_arrival()
    running.worker.stop()
    running.wait_until_ended()
    assert (runs.status(key).status, runs.status(key).attempts) == ("queued", 0)
    # The try that failed is on record all the same.
    assert runs.rows("SELECT status, attempts FROM flows.steps") == [("failed", 1)]


def test_memos_made_before_the_end_are_kept(runs: Runs, gate: Gate) -> None:
    calls: list[int] = []
    registry, hold = held(gate, lambda wf: wf.execute("before/v1", lambda: calls.append(1)))
    key = runs.begin(hold)
    running = runs.start(registry, **NO_GRACE)
    gate.wait_for_arrival()
    running.worker.stop()
    running.wait_until_ended()
    runs.execute_due(registry)
    gate.open()
    assert runs.status(key).status == "completed"
    assert calls == [1]


def test_an_idle_worker_ends_at_once(runs: Runs) -> None:
    registry = Registry()
    registry.workflow("idle")(lambda wf: None)
    running = runs.start(registry, poll_interval=HOUR, max_poll_interval=HOUR)
    began = monotonic()
    running.stop()
    assert monotonic() - began < 2
