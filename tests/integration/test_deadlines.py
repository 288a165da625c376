"""Deadlines of runs: whatever a run is doing, it fails for good when its time is up."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from flows import Client, ConfigError, Context, Registry, RetryPolicy, RunRetryPolicy
from flows.clock import monotonic
from flows.lookahead import LookAhead
from tests.running import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows import RunKey, RunStatus
    from tests.running import Runs

MS = timedelta(milliseconds=1)
FOREVER = timedelta(hours=1)
UNTOLD: dict[str, Any] = {"poll_interval": FOREVER, "max_poll_interval": FOREVER}
LATE = (
    "SELECT extract(epoch FROM finished_at - deadline)::float8 FROM flows.runs"
    " WHERE deadline IS NOT NULL"
)

registry = Registry()


def spin() -> None:
    while True:
        pass


def use_primitives(wf: Context) -> None:
    number = 0
    while True:
        number += 1
        wf.execute(f"step/{number}", int)


WAYS: dict[str, Callable[[Context], Any]] = {
    "": lambda wf: None,
    "sleep": lambda wf: wf.sleep("nap/v1", FOREVER),
    "wait": lambda wf: wf.wait_for_event("wait/v1", "number"),
    "retry": lambda wf: int("not yet"),
    "spin": lambda wf: spin(),
    "step": lambda wf: wf.execute("spin/v1", spin),
    "statement": lambda wf: wf.tx.execute("SELECT pg_sleep(3600)"),
    "backoff": lambda wf: wf.execute(
        "fail/v1", int, "no number", RetryPolicy(9, lambda _: FOREVER)
    ),
    "primitives": use_primitives,
}


@registry.workflow("demo", run_retry=RunRetryPolicy(5, lambda _: FOREVER))
def demo(wf: Context, how: str) -> None:
    WAYS[how](wf)


def begin(runs: Runs, how: str, deadline: Any, client: Client | None = None) -> RunKey:
    return (client or runs.client).begin_tx(runs.connection, demo, how, deadline=deadline)


def check_overdue(runs: Runs, key: RunKey, *, attempts: int) -> RunStatus:
    status = runs.wait_for(key, "failed")
    assert (status.attempts, status.next_wake_at) == (attempts, None)
    headline = f"flows.errors.RunTimeoutError: run {key} was not done by its deadline"
    assert runs.error(key).startswith(headline)
    [(late_s,)] = runs.rows(LATE)
    # On an idle machine a few milliseconds; nobody would look for an hour without being told.
    assert 0 <= late_s < 5
    return status


@pytest.mark.parametrize(
    ("how", "status", "attempts"),
    [("sleep", "sleeping", 0), ("wait", "waiting_event", 0), ("retry", "sleeping", 1)],
)
@pytest.mark.parametrize("is_instant", [False, True], ids=["in", "at"])
def test_a_run_that_is_not_running_fails_at_its_deadline(
    runs: Runs, *, how: str, status: str, attempts: int, is_instant: bool
) -> None:
    deadline: Any = timedelta(seconds=2)
    if is_instant:
        [(deadline,)] = runs.rows("SELECT now() + interval '2 s'")
        deadline = deadline.astimezone(timezone(timedelta(hours=5)))
    key = begin(runs, how, deadline)
    runs.start(registry, **UNTOLD)
    runs.wait_for(key, status)
    check_overdue(runs, key, attempts=attempts)
    assert ("ValueError: invalid literal" in runs.error(key)) == (how == "retry")


@pytest.mark.parametrize("how", ["spin", "step", "statement", "backoff", "primitives"])
def test_a_run_that_is_running_fails_at_its_deadline(runs: Runs, how: str) -> None:
    key = begin(runs, how, timedelta(seconds=2))
    runs.start(registry, **UNTOLD)
    check_overdue(runs, key, attempts=1)
    assert runs.rows("SELECT count(*) FROM flows.runs WHERE worker_id IS NOT NULL") == [(0,)]


def test_a_run_that_nobody_can_take_fails_at_its_deadline(runs: Runs) -> None:
    gate = Gate()
    others = Registry()

    @others.workflow("demo")
    def busy(wf: Context, how: str) -> None:
        if how == "busy":
            gate.pass_through()

    runs.start(others, **UNTOLD)
    # After it the worker has looked for deadlines, and hears of others only by being told.
    runs.wait_for(runs.begin(busy, "first"), "completed")
    runs.begin(busy, "busy")
    gate.wait_for_arrival()
    key = begin(runs, "late", timedelta(seconds=2))
    # Queued, or claimed ahead and not begun.
    assert runs.wait_for(key, "failed").attempts <= 1
    gate.open()
    [(late_s,)] = runs.rows(LATE)
    assert 0 <= late_s < 5


def test_a_run_that_is_claimed_and_not_begun_fails_at_its_deadline(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    others = Registry()
    # However long the runs are, claim ahead.
    monkeypatch.setattr(LookAhead, "should_claim", lambda *_: True)
    monkeypatch.setattr(LookAhead, "wanted", lambda *_: 5)
    monkeypatch.setattr("flows.dispatcher.PATIENCE_S", 3600.0)

    @others.workflow("demo")
    def busy(wf: Context, how: str) -> None:
        if how == "busy":
            gate.pass_through()

    runs.start(others, **UNTOLD)
    runs.begin(busy, "busy")
    gate.wait_for_arrival()
    key = begin(runs, "", timedelta(seconds=2))
    other = runs.begin(busy, "")
    wait_until(lambda: runs.status(key).status == "running", what="it is claimed ahead")
    check_overdue(runs, key, attempts=1)
    gate.open()
    runs.wait_for(other, "completed")


def test_a_deadline_comes_although_an_earlier_one_is_not_kept(runs: Runs) -> None:
    others = Registry()
    read_fd, write_fd = os.pipe()

    @others.workflow("demo", concurrency=2)
    def work(wf: Context, how: str) -> None:
        if how == "stuck":
            os.read(read_fd, 1)
        wf.wait_for_event("wait/v1", "number")

    stuck = begin(runs, "stuck", timedelta(seconds=1))
    key = begin(runs, "wait", timedelta(seconds=3))
    runs.start(others, timeout_grace=timedelta(seconds=10), **UNTOLD)
    runs.wait_for(key, "failed")
    assert runs.status(stuck).status == "running"
    late = f"{LATE} AND run_id = %s"
    [(late_s,)] = runs.rows(late, key.run_id)
    assert 0 <= late_s < 5
    os.write(write_fd, b"!")
    runs.wait_for(stuck, "failed")
    os.close(read_fd)
    os.close(write_fd)


def test_a_run_that_is_claimed_too_late_is_not_executed(runs: Runs) -> None:
    key = begin(runs, "spin", datetime(2020, 1, 1, tzinfo=UTC))
    runs.execute_due(registry)
    status = runs.status(key)
    assert (status.status, status.attempts) == ("failed", 1)
    assert "was not done by its deadline" in runs.error(key)


def test_a_run_in_time_is_left_alone(runs: Runs) -> None:
    key = begin(runs, "", timedelta(minutes=1))
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"


def test_what_an_attempt_has_written_is_undone_at_the_deadline(runs: Runs) -> None:
    runs.connection.execute("CREATE TABLE ledger (entry text)")
    writers = Registry()

    @writers.workflow("writer")
    def writer(wf: Context) -> None:
        wf.tx.execute("INSERT INTO ledger VALUES ('half')")
        spin()

    key = runs.client.begin_tx(runs.connection, writer, deadline=timedelta(seconds=2))
    runs.execute_due(writers)
    assert runs.status(key).status == "failed"
    assert runs.rows("SELECT * FROM ledger") == []


def test_run_timeout_counts_from_the_first_claim_through_sleeps_and_retries(runs: Runs) -> None:
    timed = Registry()

    @timed.workflow(
        "timed",
        run_timeout=timedelta(seconds=2),
        run_retry=RunRetryPolicy(99, lambda _: 20 * MS),
    )
    def fails(wf: Context) -> None:
        raise ValueError("not yet")

    key = runs.begin(fails)
    began = "SELECT deadline - started_at, started_at > created_at FROM flows.runs"
    assert runs.rows("SELECT deadline FROM flows.runs") == [(None,)]
    runs.start(timed)
    status = runs.wait_for(key, "failed")
    assert runs.rows(began) == [(timedelta(seconds=2), True)]
    assert 1 < status.attempts < 99
    assert "RunTimeoutError" in runs.error(key)


def test_run_timeout_ends_a_run_that_waits(runs: Runs) -> None:
    timed = Registry()

    @timed.workflow("timed", run_timeout=timedelta(seconds=2))
    def waits(wf: Context) -> None:
        wf.wait_for_event("wait/v1", "number")

    runs.start(timed, **UNTOLD)
    key = runs.begin(waits)
    check_overdue(runs, key, attempts=0)


def test_the_nearer_of_deadline_and_run_timeout_counts(runs: Runs) -> None:
    timed = Registry()

    @timed.workflow("timed", run_timeout=timedelta(minutes=1))
    def timed_run(wf: Context) -> float:
        assert wf.remaining is not None
        return wf.remaining.total_seconds()

    for deadline, longest_s in ((timedelta(seconds=30), 30), (timedelta(hours=1), 60)):
        key = runs.client.begin_tx(runs.connection, timed_run, deadline=deadline)
        runs.execute_due(timed)
        assert longest_s - 20 < runs.output(key, float) <= longest_s


def test_a_step_sees_the_nearer_of_its_timeout_and_the_deadline(runs: Runs) -> None:
    asking = Registry()

    @asking.workflow("asking")
    def asks(wf: Context) -> list[float]:
        def ask() -> float:
            assert wf.remaining is not None
            return wf.remaining.total_seconds()

        near, far = RetryPolicy(0, None, timedelta(minutes=1)), RetryPolicy(0, None, FOREVER)
        return [wf.execute("ask/v1", ask, retry=near), wf.execute("ask/v2", ask, retry=far)]

    key = runs.client.begin_tx(runs.connection, asks, deadline=timedelta(minutes=10))
    runs.execute_due(asking)
    near_s, far_s = runs.output(key, list[float])
    assert 40 < near_s <= 60
    assert 500 < far_s <= 600


def test_many_runs_share_a_deadline(runs: Runs) -> None:
    runs.start(registry, **UNTOLD)
    keys = runs.client.begin_many_tx(
        runs.connection, demo, ["wait"] * 20, deadline=timedelta(seconds=2)
    )
    for key in keys:
        runs.wait_for(key, "failed")
        assert "RunTimeoutError" in runs.error(key)


def test_a_worker_that_starts_finds_the_deadlines_of_others(runs: Runs) -> None:
    key = begin(runs, "wait", timedelta(seconds=2))
    runs.execute_due(registry)
    runs.start(registry, **UNTOLD)
    check_overdue(runs, key, attempts=0)


def test_process_one_ends_what_is_overdue(runs: Runs) -> None:
    key = begin(runs, "wait", timedelta(seconds=2))
    runs.execute_due(registry)
    past = "SELECT deadline < now() FROM flows.runs"
    wait_until(lambda: runs.rows(past) == [(True,)], what="the deadline is past")
    assert runs.execute_due(registry) == 0
    assert runs.status(key).status == "failed"


def test_an_attempt_that_does_not_end_at_the_deadline_is_given_up(runs: Runs) -> None:
    read_fd, write_fd = os.pipe()
    came_back = threading.Event()
    stuck = Registry()

    @stuck.workflow("stuck", run_retry=RunRetryPolicy(5))
    def read(wf: Context, how: str) -> None:
        try:
            os.read(read_fd, 1)
        finally:
            came_back.set()

    began_s = monotonic()
    key = runs.client.begin_tx(runs.connection, read, "", deadline=timedelta(seconds=2))
    runs.start(stuck, timeout_grace=100 * MS)
    assert runs.wait_for(key, "failed").attempts == 1
    assert monotonic() - began_s >= 2.1
    assert "RunTimeoutError" in runs.error(key)
    os.write(write_fd, b"!")
    assert came_back.wait(10)
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize("deadline", [timedelta(), -MS, datetime(2030, 1, 1), 5, "tomorrow"])  # noqa: DTZ001
def test_a_deadline_that_cannot_be_one_is_refused(runs: Runs, deadline: Any) -> None:
    with pytest.raises(ConfigError, match="a deadline is a positive timedelta of at most"):
        runs.client.begin_tx(runs.connection, demo, "", deadline=deadline)
    with pytest.raises(ConfigError, match="a deadline is a positive timedelta"):
        runs.client.begin_many_tx(runs.connection, demo, [""], deadline=deadline)
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(0,)]


@pytest.mark.parametrize("timeout", [timedelta(), -MS, 5])
def test_a_run_timeout_that_cannot_be_one_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="run_timeout must be a positive timedelta"):
        Registry().workflow("demo", run_timeout=timeout)
