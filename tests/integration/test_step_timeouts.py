"""Step timeouts: a try ends when its time is up, whatever it is doing."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RetryPolicy, RunRetryPolicy, StepTimeoutError
from flows.clock import monotonic
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

MS = timedelta(milliseconds=1)
STEPS = "SELECT step_key, status, attempts, error_text FROM flows.steps ORDER BY 1"
SOON = RetryPolicy(step_timeout=300 * MS)


class Pipe:
    """A call into C that returns when the test lets it."""

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()
        self.returned = threading.Event()

    def read(self) -> str:
        try:
            os.read(self.read_fd, 1)
        finally:
            self.returned.set()
        return "too late"

    def let_go(self) -> None:
        os.write(self._write_fd, b"!")

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self._write_fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def spin() -> None:
    while True:
        pass


def test_a_loop_without_end_is_ended_and_tried_again(runs: Runs) -> None:
    registry = Registry()
    tries: list[float] = []

    def step() -> str:
        tries.append(monotonic())
        if len(tries) < 3:
            spin()
        return "in time"

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        policy = RetryPolicy(max_retries=2, step_timeout=300 * MS)
        return wf.execute("spin/v1", step, retry=policy)

    key = runs.execute(registry, demo)
    assert runs.output(key) == "in time"
    assert runs.rows(STEPS) == [("spin/v1", "completed", 3, None)]
    assert tries[2] - tries[0] >= 0.6


def test_the_error_tells_where_the_step_was(runs: Runs) -> None:
    registry = Registry()
    raised: list[StepTimeoutError] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        try:
            wf.execute("spin/v1", spin, retry=SOON)
        except StepTimeoutError as error:
            raised.append(error)
            raise

    key = runs.execute(registry, demo)
    [error] = raised
    assert (error.step_key, error.timeout_s) == ("spin/v1", 0.3)
    assert error.elapsed_s >= 0.3
    assert "in spin" in runs.error(key)
    [(_, status, attempts, text)] = runs.rows(STEPS)
    assert (status, attempts) == ("failed", 1)
    assert "in spin" in text


def test_a_statement_is_cancelled_and_its_transaction_goes_on(runs: Runs) -> None:
    registry = Registry()
    runs.connection.execute("CREATE TABLE ledger (entry text)")
    tries: list[int] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.tx.execute("INSERT INTO ledger VALUES ('before')")

        def step() -> None:
            tries.append(1)
            wf.tx.execute("INSERT INTO ledger VALUES ('step')")
            if len(tries) == 1:
                wf.tx.execute("SELECT pg_sleep(3600)")

        wf.execute(
            "sleep/v1", step, retry=RetryPolicy(max_retries=1, step_timeout=timedelta(seconds=1))
        )
        wf.tx.execute("INSERT INTO ledger VALUES ('after')")

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "completed", runs.status(key).error
    assert [entry for (entry,) in runs.rows("SELECT entry FROM ledger")] == [
        "before",
        "step",
        "after",
    ]


@pytest.mark.parametrize("kind", ["stream", "block", "copy"])
def test_user_code_between_the_statements_of_a_block_is_ended(runs: Runs, kind: str) -> None:
    registry = Registry()
    runs.connection.execute("CREATE TABLE ledger (entry text)")
    tries: list[int] = []

    def run_block(wf: Context) -> None:
        if kind == "stream":
            for _ in wf.tx.cursor().stream("SELECT generate_series(1, 1000)"):
                spin()
        elif kind == "block":
            with wf.tx.transaction():
                wf.tx.execute("INSERT INTO ledger VALUES ('undone')")
                spin()
        else:
            with wf.tx.cursor().copy("COPY ledger FROM STDIN") as copy:
                copy.write_row(["undone"])
                spin()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        def step() -> None:
            tries.append(1)
            if len(tries) == 1:
                run_block(wf)
            wf.tx.execute("INSERT INTO ledger VALUES ('step')")

        wf.execute(
            "block/v1", step, retry=RetryPolicy(max_retries=1, step_timeout=timedelta(seconds=1))
        )

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "completed", runs.status(key).error
    assert runs.rows("SELECT entry FROM ledger") == [("step",)]
    assert len(tries) == 2


def test_a_step_that_swallows_its_end_has_failed_all_the_same(runs: Runs) -> None:
    registry = Registry()

    def step() -> str:
        try:
            spin()
        except BaseException:  # noqa: BLE001  as careless user code does
            return "well"
        return "never"

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        return wf.execute("spin/v1", step, retry=SOON)

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "failed"
    assert "StepTimeoutError" in runs.error(key)


def test_a_call_that_does_not_return_is_given_up_with_its_thread(
    runs: Runs, pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    stuck: list[str] = []
    tries: list[str] = []

    @registry.workflow(
        "demo", run_retry=RunRetryPolicy(max_attempts=2, backoff=lambda _: timedelta())
    )
    def demo(wf: Context) -> str:
        def step() -> str:
            tries.append(threading.current_thread().name)
            return pipe.read() if len(tries) == 1 else "in time"

        wf.tx.execute("SELECT 1")
        return wf.execute("read/v1", step, retry=SOON)

    key = runs.begin(demo)
    with caplog.at_level(logging.ERROR, "flows"):
        runs.start(registry, timeout_grace=50 * MS, on_stuck=stuck.append)
        runs.wait_for(key, "completed")
    assert (runs.output(key), runs.status(key).attempts) == ("in time", 1)
    assert tries == ["flows-demo-0", "flows-demo-0"]
    assert stuck == [
        f"run {key.run_id} of demo, step read/v1, did not end within 0.05 s of being told to"
    ]
    assert "its thread is given up, and another one takes its place" in caplog.text
    # What comes back late finds that nothing of it counts.
    threads = [each for each in threading.enumerate() if each.name == "flows-demo-0"]
    assert len(threads) == 2
    pipe.let_go()
    assert pipe.returned.wait(10)
    wait_until(lambda: sum(each.is_alive() for each in threads) == 1, what="its thread ends")
    assert (runs.output(key), runs.rows(STEPS)[0][1:3]) == ("in time", ("completed", 1))


def test_the_error_of_a_step_that_was_given_up_tells_where_it_was(runs: Runs, pipe: Pipe) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        return wf.execute("read/v1", pipe.read, retry=SOON)

    key = runs.begin(demo)
    runs.start(registry, timeout_grace=50 * MS)
    assert runs.wait_for(key, "failed").attempts == 1
    for error in (runs.error(key), runs.rows(STEPS)[0][3]):
        assert "flows.errors.StepTimeoutError: step 'read/v1' took" in error
        assert "in read" in error
    pipe.let_go()
    assert pipe.returned.wait(10)


def test_a_thread_that_is_given_up_leaves_its_executor_and_its_connection_to_others(
    runs: Runs,
) -> None:
    registry = Registry()
    pipes = [Pipe() for _ in range(3)]

    @registry.workflow("demo", concurrency=2)
    def demo(wf: Context, number: int | None) -> int:
        wf.tx.execute("SELECT 1")
        if number is not None:
            wf.execute("read/v1", pipes[number].read, retry=SOON)
        return wf.tx.execute("SELECT 7").fetchone()[0]  # type: ignore[index,no-any-return]

    stuck = [runs.begin(demo, number) for number in range(3)]
    running = runs.start(registry, timeout_grace=50 * MS)
    for key in stuck:
        runs.wait_for(key, "failed")
    others = [runs.begin(demo) for _ in range(10)]
    for key in others:
        runs.wait_for(key, "completed")
    running.stop()
    for pipe in pipes:
        pipe.let_go()
        assert pipe.returned.wait(10)
        pipe.close()


def test_a_try_that_is_over_is_not_ended_later(runs: Runs) -> None:
    registry = Registry()
    count = 300

    @registry.workflow("demo", concurrency=3)
    def demo(wf: Context) -> dict[str, int]:
        counts = {"returned": 0, "ended": 0}
        for number in range(count):
            try:
                policy = RetryPolicy(step_timeout=timedelta(microseconds=number % 3 * 300 + 1))
                wf.execute(f"step/{number}", lambda: sum(range(1000)), retry=policy)
                counts["returned"] += 1
            except StepTimeoutError:
                counts["ended"] += 1
        return counts

    keys = [runs.begin(demo) for _ in range(6)]
    runs.start(registry)
    total = {"returned": 0, "ended": 0}
    for key in keys:
        runs.wait_for(key, "completed", timeout_s=60)
        output = runs.output(key, dict[str, int])
        assert sum(output.values()) == count
        for kind, number in output.items():
            total[kind] += number
    recorded = dict(runs.rows("SELECT status, count(*) FROM flows.steps GROUP BY status"))
    assert recorded == {"completed": total["returned"], "failed": total["ended"]}
    assert min(total.values()) > 0


def test_a_step_may_ask_how_long_it_may_take(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        assert wf.remaining is None
        policy = RetryPolicy(step_timeout=timedelta(minutes=1))

        def ask() -> timedelta | None:
            return wf.remaining

        left = wf.execute("ask/v1", ask, retry=policy)
        assert left is not None
        assert timedelta(seconds=50) < left <= timedelta(minutes=1)
        assert wf.execute("ask/v2", ask) is None
        assert not wf.is_cancelled

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "completed", runs.status(key).error


def test_a_request_to_cancel_a_statement_reaches_no_other_statement(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo", concurrency=2)
    def demo(wf: Context) -> int:
        cancelled = 0

        def step(pause_s: float) -> None:
            wf.tx.execute("SELECT pg_sleep(%s)", (pause_s,))

        for number in range(30):
            try:
                wf.execute(f"nap/{number}", step, number * 0.0005, RetryPolicy(0, None, 8 * MS))
            except StepTimeoutError:
                cancelled += 1
            # Would fail the run if it were hit.
            wf.tx.execute("SELECT 1")
        return cancelled

    keys = [runs.begin(demo) for _ in range(4)]
    runs.start(registry)
    for key in keys:
        assert runs.wait_for(key, "completed", timeout_s=60).attempts == 0
        assert 0 < runs.output(key, int) <= 30


def test_the_next_statement_waits_for_a_request_that_is_on_its_way(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    happened: list[str] = []
    cancel_safe = psycopg.Connection.cancel_safe
    idle = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'flows transaction' AND state <> 'active'"
    )

    def cancel_late(connection: psycopg.Connection[Any], *, timeout: float) -> None:
        wait_until(lambda: runs.rows(idle), what="the statement has ended by itself")
        cancel_safe(connection, timeout=timeout)
        happened.append("asked to cancel")

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", cancel_late)

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        def step() -> None:
            wf.tx.execute("SELECT pg_sleep(0.6)")

        with contextlib.suppress(StepTimeoutError):
            wf.execute("nap/v1", step, retry=SOON)
        wf.tx.execute("SELECT 1")
        happened.append("next statement")

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "completed", runs.status(key).error
    assert happened == ["asked to cancel", "next statement"]


def test_a_step_that_is_tried_again_does_not_wait_for_a_worker_that_stops(runs: Runs) -> None:
    registry = Registry()
    failed = threading.Event()

    def step() -> None:
        failed.set()
        raise ValueError("not yet")

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.execute("step/v1", step, retry=RetryPolicy(5, lambda _: timedelta(hours=1)))

    key = runs.begin(demo)
    running = runs.start(registry, graceful_shutdown_timeout=timedelta())
    assert failed.wait(10)
    began_s = monotonic()
    running.stop()
    assert monotonic() - began_s < 5
    assert (runs.status(key).status, runs.status(key).attempts) == ("queued", 0)


def test_the_timeout_of_a_statement_that_waits_for_a_lock(runs: Runs) -> None:
    registry = Registry()
    errors: list[Any] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        def step() -> None:
            try:
                wf.tx.execute("SELECT pg_advisory_xact_lock(4711)")
            except BaseException as error:
                errors.append(error)
                raise

        try:
            wf.execute("lock/v1", step, retry=SOON)
        except StepTimeoutError:
            return "too late"
        return "in time"

    with psycopg.connect(runs.dsn) as locker:
        locker.execute("SELECT pg_advisory_xact_lock(4711)")
        key = runs.execute(registry, demo)
    assert runs.output(key) == "too late"
    assert len(errors) == 1
