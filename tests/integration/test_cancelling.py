"""Cancelling a run that is running: it ends, its transaction is undone, and no request is lost."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, Context, Registry, RetryPolicy, RunRetryPolicy
from flows.leases import release_worker
from tests.crash.holds import Hold
from tests.running import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows import RunKey
    from tests.running import Runs

MS = timedelta(milliseconds=1)
FOREVER = timedelta(hours=1)
ONLY_NOTIFIED: dict[str, Any] = {"poll_interval": FOREVER, "max_poll_interval": FOREVER}
ONLY_POLLING: dict[str, Any] = {"poll_interval": 20 * MS, "disable_notify": True}
UNTOLD: dict[str, Any] = {**ONLY_NOTIFIED, "disable_notify": True}


def cancel(runs: Runs, key: RunKey, **options: Any) -> None:
    Client(**options).cancel_run_tx(runs.connection, key)


def check_cancelled(runs: Runs, key: RunKey, timeout_s: float = 10.0) -> None:
    status = runs.wait_for(key, "cancelled", timeout_s)
    assert (status.error, status.next_wake_at) == ("cancelled by user", None)
    [row] = runs.rows("SELECT worker_id, finished_at IS NOT NULL FROM flows.runs")
    assert row == (None, True)


def in_python(wf: Context) -> None:
    while True:
        pass


def in_a_step(wf: Context) -> None:
    wf.execute("spin/v1", lambda: in_python(wf))


def in_a_statement(wf: Context) -> None:
    wf.tx.execute("SELECT pg_sleep(3600)")


def between_tries(wf: Context) -> None:
    wf.execute("fail/v1", int, "no number", RetryPolicy(9, lambda _: FOREVER))


def swallowing(wf: Context) -> None:
    while True:
        try:
            wf.execute("spin/v1", lambda: in_python(wf))
        except BaseException:  # noqa: BLE001  as careless user code does
            return


@pytest.mark.parametrize("options", [ONLY_NOTIFIED, ONLY_POLLING], ids=["notified", "polling"])
@pytest.mark.parametrize("where", [in_python, in_a_step, in_a_statement, between_tries, swallowing])
def test_a_running_run_is_cancelled_wherever_it_is(
    runs: Runs, *, where: Callable[[Context], None], options: dict[str, Any]
) -> None:
    registry = Registry()
    running = threading.Event()
    runs.connection.execute("CREATE TABLE ledger (entry text)")

    @registry.workflow("demo", run_retry=RunRetryPolicy(5))
    def demo(wf: Context) -> None:
        wf.tx.execute("INSERT INTO ledger VALUES ('half')")
        running.set()
        where(wf)

    key = runs.begin(demo)
    runs.start(registry, **options)
    assert running.wait(10)
    cancel(runs, key, disable_notify=options.get("disable_notify", False))
    check_cancelled(runs, key)
    assert runs.rows("SELECT * FROM ledger") == []
    assert runs.status(key).attempts == 0


def test_a_request_that_is_rolled_back_cancels_nothing(runs: Runs) -> None:
    registry = Registry()
    gate = Gate()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        gate.pass_through()

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as tx:
        runs.client.cancel_run_tx(tx, key)
        runs.client.cancel_run_tx(tx, key)
        tx.rollback()
    gate.open()
    runs.wait_for(key, "completed")


def test_a_worker_with_no_room_hears_of_a_request(runs: Runs) -> None:
    registry = Registry()
    running = threading.Event()

    @registry.workflow("demo", concurrency=1)
    def demo(wf: Context, role: str) -> None:
        if role == "first":
            running.set()
            in_python(wf)

    first = runs.begin(demo, "first")
    rest = [runs.begin(demo, "rest") for _ in range(3)]
    runs.start(registry, **ONLY_NOTIFIED)
    assert running.wait(10)
    cancel(runs, first)
    runs.wait_for(first, "cancelled")
    for key in rest:
        runs.wait_for(key, "completed")


def test_a_run_that_is_claimed_and_not_begun_is_cancelled_without_being_executed(
    runs: Runs,
) -> None:
    registry = Registry()
    gate = Gate()
    executed: list[int] = []

    @registry.workflow("demo")
    def demo(wf: Context, number: int) -> None:
        if number == 0:
            gate.pass_through()
        executed.append(number)

    # Short runs first, so that the worker claims ahead.
    quick = [runs.begin(demo, number) for number in range(1, 200)]
    runs.start(registry, **ONLY_NOTIFIED)
    for key in quick:
        runs.wait_for(key, "completed")
    with runs.connection.transaction():
        keys = [runs.begin(demo, 0), *(runs.begin(demo, number) for number in range(200, 260))]
    gate.wait_for_arrival()
    claimed = "SELECT run_id::text FROM flows.runs WHERE status = 'running'"
    held = {run_id for (run_id,) in wait_until(lambda: runs.rows(claimed), what="runs are claimed")}
    # The executor is at the gate: what it has executed before is known, committed or not.
    unbegun = [
        key
        for number, key in enumerate(keys[1:], 200)
        if str(key.run_id) in held and number not in executed
    ]
    assert unbegun, "nothing was claimed ahead"
    cancel(runs, unbegun[0])
    runs.wait_for(unbegun[0], "cancelled")
    gate.open()
    for key in keys:
        if key != unbegun[0]:
            runs.wait_for(key, "completed")
    assert 200 + keys.index(unbegun[0]) - 1 not in executed


def test_the_token_tells_a_thread_of_the_step(runs: Runs) -> None:
    registry = Registry()
    running, told = threading.Event(), threading.Event()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        def watch() -> None:
            running.set()
            wait_until(lambda: wf.is_cancelled, what="the token is set")
            told.set()

        threading.Thread(target=watch).start()
        in_python(wf)

    key = runs.begin(demo)
    runs.start(registry, **ONLY_NOTIFIED)
    assert running.wait(10)
    cancel(runs, key)
    check_cancelled(runs, key)
    assert told.wait(10)


def test_an_attempt_in_a_call_that_does_not_return_is_given_up(runs: Runs) -> None:
    registry = Registry()
    read_fd, write_fd = os.pipe()
    running, came_back = threading.Event(), threading.Event()
    runs.connection.execute("CREATE TABLE ledger (entry text)")

    @registry.workflow("demo")
    def demo(wf: Context, role: str) -> None:
        wf.tx.execute("INSERT INTO ledger VALUES (%s)", (role,))
        if role == "stuck":
            running.set()
            try:
                os.read(read_fd, 1)
            finally:
                came_back.set()

    key = runs.begin(demo, "stuck")
    runs.start(registry, timeout_grace=50 * MS, **ONLY_NOTIFIED)
    assert running.wait(10)
    cancel(runs, key)
    check_cancelled(runs, key)
    other = runs.begin(demo, "other")
    runs.wait_for(other, "completed")
    os.write(write_fd, b"!")
    assert came_back.wait(10)
    assert runs.rows("SELECT entry FROM ledger") == [("other",)]
    os.close(read_fd)
    os.close(write_fd)


# One outcome, always: the request comes while the attempt's outcome is on its way.


@pytest.mark.parametrize("has_transaction", [False, True], ids=["memos", "wf.tx"])
@pytest.mark.parametrize(
    ("how", "held_as"),
    [("sleep", "sleeping"), ("wait", "waiting_event"), ("retry", "sleeping")],
)
@pytest.mark.parametrize("options", [ONLY_NOTIFIED, UNTOLD], ids=["notified", "untold"])
def test_a_request_that_comes_while_the_run_yields_cancels_it(
    runs: Runs, *, how: str, held_as: str, has_transaction: bool, options: dict[str, Any]
) -> None:
    registry = yielding(how, has_transaction=has_transaction)
    key = runs.begin("demo")
    with Hold(runs.dsn, f"NEW.status = '{held_as}'") as hold:
        runs.start(registry, **options)
        hold.wait_for_arrival()
        cancel(runs, key, disable_notify=options.get("disable_notify", False))
        assert runs.status(key).status == "running"
    check_cancelled(runs, key)


@pytest.mark.parametrize("how", ["sleep", "wait", "retry"])
def test_a_request_that_is_committed_after_the_run_has_yielded_cancels_it(
    runs: Runs, how: str
) -> None:
    gate = Gate()
    registry = yielding(how, has_transaction=False, gate=gate)
    key = runs.begin("demo")
    runs.start(registry, **ONLY_NOTIFIED)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as tx:
        runs.client.cancel_run_tx(tx, key)
        gate.open()
        unfinished = "SELECT status FROM flows.runs WHERE status IN ('sleeping', 'waiting_event')"
        wait_until(lambda: runs.rows(unfinished), what="the run has yielded")
    check_cancelled(runs, key)


@pytest.mark.parametrize("has_transaction", [False, True], ids=["memos", "wf.tx"])
@pytest.mark.parametrize(("how", "status"), [("", "completed"), ("fail", "failed")])
def test_a_request_that_comes_while_the_run_ends_changes_nothing(
    runs: Runs, *, how: str, status: str, has_transaction: bool
) -> None:
    registry = yielding(how, has_transaction=has_transaction)
    key = runs.begin("demo")
    with Hold(runs.dsn, f"NEW.status = '{status}'") as hold:
        running = runs.start(registry, **ONLY_NOTIFIED)
        hold.wait_for_arrival()
        cancel(runs, key)
    runs.wait_for(key, status)
    running.stop()
    assert runs.status(key).status == status


def test_a_request_that_comes_while_the_run_is_released_cancels_it(runs: Runs) -> None:
    gate = Gate()
    registry = yielding("", has_transaction=True, gate=gate)
    key = runs.begin("demo")
    running = runs.start(registry, graceful_shutdown_timeout=timedelta(), **UNTOLD)
    gate.wait_for_arrival()
    with Hold(runs.dsn, "NEW.status = 'queued'") as hold:
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        hold.wait_for_arrival()
        cancel(runs, key, disable_notify=True)
    stopping.join(30)
    gate.open()
    runs.execute_due(yielding("", has_transaction=True))
    check_cancelled(runs, key)


def test_a_run_whose_worker_died_is_cancelled_when_it_is_claimed_again(runs: Runs) -> None:
    gate = Gate()
    registry = yielding("", has_transaction=False, gate=gate)
    key = runs.begin("demo")
    dead = runs.start(registry, **UNTOLD)
    gate.wait_for_arrival()
    cancel(runs, key, disable_notify=True)
    release_worker(runs.connection, runs.config, dead.worker.worker_id, None)
    assert runs.status(key).status == "queued"
    executed: list[int] = []
    again = Registry()
    again.workflow("demo")(lambda wf: executed.append(1))
    runs.execute_due(again)
    check_cancelled(runs, key)
    assert executed == []
    gate.open()


def test_a_claim_that_is_under_way_sees_the_request_or_is_told(runs: Runs) -> None:
    registry = Registry()
    running, first = threading.Event(), Gate()
    attempts: list[int] = []

    @registry.workflow("demo", run_retry=RunRetryPolicy(2))
    def demo(wf: Context) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            first.pass_through()
            raise ValueError("again")
        running.set()
        in_python(wf)

    key = runs.begin(demo)
    runs.start(registry, **ONLY_NOTIFIED)
    first.wait_for_arrival()
    with psycopg.connect(runs.dsn) as tx, Hold(runs.dsn, "NEW.claim = 2") as hold:
        runs.client.cancel_run_tx(tx, key)
        first.open()
        # The second claim has looked for requests already, and is not committed.
        hold.wait_for_arrival()
        tx.commit()
    check_cancelled(runs, key)


def yielding(how: str, *, has_transaction: bool, gate: Gate | None = None) -> Registry:
    registry = Registry()

    @registry.workflow(
        "demo", run_retry=RunRetryPolicy(1 if how == "fail" else 2, lambda _: FOREVER)
    )
    def demo(wf: Context) -> None:
        if has_transaction:
            wf.tx.execute("SELECT 1")
        if gate is not None:
            gate.pass_through()
        if how == "sleep":
            wf.sleep("nap/v1", FOREVER)
        elif how == "wait":
            wf.wait_for_event("wait/v1", "number")
        elif how:
            raise ValueError("not yet")

    return registry
