"""Asking after runs and cancelling them, in every status that a run can have."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest

from flows import Context, Registry, RunKey
from flows.errors import DecodeError, RunStateError
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from datetime import datetime

registry = Registry()


@registry.workflow("work")
def work(wf: Context, how: str) -> list[int]:
    if how == "sleep":
        wf.sleep("cooldown/v1", timedelta(hours=1))
    if how == "wait":
        wf.wait_for_event("number/v1", "Number", int)
    if how == "fail":
        raise ValueError("no such scene\0")
    return [1, 2]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def held(runs: Runs, gate: Gate) -> RunKey:
    """A run that a worker is executing, until the gate is opened."""
    holding = Registry()

    @holding.workflow("held")
    def hold(wf: Context) -> str:
        gate.pass_through()
        return "done"

    key = runs.begin(hold)
    runs.start(holding)
    gate.wait_for_arrival()
    return key


def database_time(runs: Runs) -> datetime:
    [(now,)] = runs.rows("SELECT clock_timestamp()")
    return cast("datetime", now)


def test_a_queued_run(runs: Runs) -> None:
    before = database_time(runs)
    status = runs.status(runs.begin(work, "sleep"))
    assert (status.status, status.error, status.attempts) == ("queued", None, 0)
    assert status.next_wake_at is None
    assert before <= status.created_at == status.updated_at <= database_time(runs)


def test_a_running_run_is_seen_by_everybody(runs: Runs, held: RunKey, gate: Gate) -> None:
    assert runs.status(held).status == "running"
    gate.open()
    runs.wait_for(held, "completed")


def test_a_sleeping_run_tells_when_it_wakes(runs: Runs) -> None:
    before = database_time(runs)
    status = runs.status(runs.execute(registry, work, "sleep"))
    assert (status.status, status.error, status.attempts) == ("sleeping", None, 0)
    assert status.next_wake_at is not None
    hour = timedelta(hours=1)
    assert before + hour <= status.next_wake_at <= database_time(runs) + hour
    assert status.updated_at > status.created_at


def test_a_waiting_run(runs: Runs) -> None:
    status = runs.status(runs.execute(registry, work, "wait"))
    assert (status.status, status.error, status.next_wake_at) == ("waiting_event", None, None)


def test_a_completed_run_gives_its_output(runs: Runs) -> None:
    key = runs.execute(registry, work, "")
    status = runs.status(key)
    assert (status.status, status.error, status.attempts) == ("completed", None, 0)
    assert runs.output(key) == [1, 2]
    assert runs.output(key, tuple[int, int]) == (1, 2)
    assert runs.client.get_run_output_tx(runs.connection, str(key), set[int]) == {1, 2}


def test_an_output_of_another_type_than_asked_for_is_refused(runs: Runs) -> None:
    key = runs.execute(registry, work, "")
    with pytest.raises(DecodeError, match=r"dict\[str, int\]"):
        runs.output(key, dict[str, int])


def test_a_failed_run_tells_type_message_and_traceback(runs: Runs) -> None:
    key = runs.execute(registry, work, "fail")
    status = runs.status(key)
    assert (status.status, status.attempts, status.next_wake_at) == ("failed", 1, None)
    assert runs.error(key).startswith("ValueError: no such scene\\x00\n\nTraceback")
    assert "in work" in runs.error(key)
    with pytest.raises(RunStateError, match=r"is failed.*output: ValueError: no such scene"):
        runs.output(key)


@pytest.mark.parametrize(
    ("how", "status"), [("sleep", "sleeping"), ("wait", "waiting_event"), (None, "queued")]
)
def test_a_run_that_is_not_running_can_be_cancelled(
    runs: Runs, how: str | None, status: str
) -> None:
    key = runs.begin(work, how or "")
    if how is not None:
        runs.execute_due(registry)
    assert runs.status(key).status == status
    runs.client.cancel_run_tx(runs.connection, key)
    cancelled = runs.status(key)
    assert (cancelled.status, cancelled.next_wake_at) == ("cancelled", None)
    assert runs.execute_due(registry) == 0
    with pytest.raises(RunStateError, match="is cancelled and cannot give an output"):
        runs.output(key)


def test_a_cancelled_run_is_not_woken_by_its_event(runs: Runs) -> None:
    key = runs.execute(registry, work, "wait")
    runs.client.cancel_run_tx(runs.connection, key)
    runs.publish(key, "Number", 1)
    assert runs.execute_due(registry) == 0
    assert runs.status(key).status == "cancelled"


def test_a_running_run_is_asked_to_end_and_nobody_waits_for_it(
    runs: Runs, held: RunKey, gate: Gate
) -> None:
    with runs.connection.transaction():
        runs.connection.execute("SET LOCAL lock_timeout = '100 ms'")
        runs.client.cancel_run_tx(runs.connection, held)
        assert runs.status(held).status == "running"
    assert runs.rows("SELECT count(*) FROM flows.cancellations") == [(1,)]
    gate.open()
    # Whichever comes first.
    wait_until(lambda: runs.status(held).status in {"cancelled", "completed"}, what="it is over")


@pytest.mark.parametrize(("how", "status"), [("", "completed"), ("fail", "failed")])
def test_a_run_that_is_over_cannot_be_cancelled(runs: Runs, how: str, status: str) -> None:
    key = runs.execute(registry, work, how)
    with runs.connection.transaction():
        with pytest.raises(RunStateError, match=f"is {status} and cannot be cancelled"):
            runs.client.cancel_run_tx(runs.connection, key)
        assert runs.status(key).status == status


def test_a_cancellation_and_a_claim_exclude_each_other(runs: Runs) -> None:
    key = runs.begin(work, "")
    with psycopg.connect(runs.dsn) as tx:
        runs.client.cancel_run_tx(tx, key)
        # The claim skips the locked run instead of waiting for it.
        assert runs.execute_due(registry) == 0
        tx.rollback()
    assert runs.execute_due(registry) == 1
    assert runs.status(key).status == "completed"


def test_a_run_is_seen_as_the_callers_transaction_sees_it(runs: Runs) -> None:
    key = runs.begin(work, "")
    seen: list[Any] = []
    with psycopg.connect(runs.dsn) as tx:
        tx.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        seen.append(runs.client.get_run_status_tx(tx, key).status)
        runs.execute_due(registry)
        seen.append(runs.client.get_run_status_tx(tx, key).status)
    assert seen == ["queued", "queued"]
    assert runs.status(key).status == "completed"
