"""Retries of a step within one attempt of its run: how often, when, and when not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import (
    Context,
    EncodeError,
    Registry,
    RetryPolicy,
    StepPanicError,
    StepTimeoutError,
    TerminalError,
    exponential_backoff,
)
from flows.clock import monotonic
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = "SELECT status, attempts, error_text FROM flows.steps"
MS = timedelta(milliseconds=1)


class Fragile:
    """A step that fails a number of times."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or ValueError("not yet")
        self.called_at_s: list[float] = []

    def __call__(self) -> str:
        self.called_at_s.append(monotonic())
        if len(self.called_at_s) <= self.failures:
            raise self.error
        return "made it"


def execute(runs: Runs, step: Callable[[], Any], retry: RetryPolicy) -> Any:
    """Execute a step in a run of its own; return what it gave, or the error it raised."""
    raised: list[Exception] = []
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        try:
            return wf.execute("fragile/v1", step, retry=retry)
        except Exception as error:
            raised.append(error)
            raise

    key = runs.execute(registry, demo)
    return raised[0] if raised else runs.output(key)


def test_without_a_policy_a_step_is_tried_once(runs: Runs) -> None:
    step = Fragile(1)
    assert execute(runs, step, RetryPolicy()) is step.error
    assert len(step.called_at_s) == 1


def test_a_step_is_tried_again_as_often_as_the_policy_says(runs: Runs) -> None:
    step = Fragile(2)
    assert execute(runs, step, RetryPolicy(max_retries=2)) == "made it"
    assert runs.rows(STEPS) == [("completed", 3, None)]


def test_once_its_retries_are_spent_the_step_raises_its_own_error(runs: Runs) -> None:
    step = Fragile(3)
    assert execute(runs, step, RetryPolicy(max_retries=2)) is step.error
    assert len(step.called_at_s) == 3
    [(status, attempts, error)] = runs.rows(STEPS)
    assert (status, attempts) == ("failed", 3)
    assert error.startswith("ValueError: not yet\n\nTraceback")


def test_each_failure_is_recorded_as_it_comes(runs: Runs) -> None:
    gate, step = Gate(), Fragile(1)
    registry = Registry()

    def backoff(failed: int) -> timedelta:
        gate.pass_through()
        return timedelta()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        return wf.execute("fragile/v1", step, retry=RetryPolicy(1, backoff))

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    [row] = wait_until(lambda: runs.rows(STEPS), what="the failure is recorded")
    assert row[:2] == ("failed", 1)
    gate.open()
    runs.wait_for(key, "completed")
    assert runs.rows(STEPS) == [("completed", 2, None)]


def test_the_backoff_is_asked_by_the_failed_try_counted_from_0(runs: Runs) -> None:
    asked: list[int] = []

    def backoff(failed: int) -> timedelta:
        asked.append(failed)
        return timedelta()

    execute(runs, Fragile(3), RetryPolicy(max_retries=5, backoff=backoff))
    assert asked == [0, 1, 2]


def test_the_backoff_is_waited_for(runs: Runs) -> None:
    step = Fragile(3)
    execute(runs, step, RetryPolicy(5, exponential_backoff(20 * MS, 40 * MS)))
    first, second, third, fourth = step.called_at_s
    assert second - first >= 0.02
    assert third - second >= 0.02
    assert fourth - third >= 0.04


@pytest.mark.parametrize("wait", [-timedelta(seconds=1), timedelta()])
def test_a_backoff_that_is_not_positive_is_no_wait(runs: Runs, wait: timedelta) -> None:
    assert execute(runs, Fragile(2), RetryPolicy(2, lambda _: wait)) == "made it"


def test_a_terminal_error_is_not_tried_again(runs: Runs) -> None:
    step = Fragile(1, TerminalError("no use"))
    assert execute(runs, step, RetryPolicy(max_retries=5)) is step.error
    assert len(step.called_at_s) == 1
    assert runs.rows(STEPS)[0][:2] == ("failed", 1)


def test_a_value_that_cannot_be_kept_is_not_tried_again(runs: Runs) -> None:
    calls: list[int] = []

    def step() -> Any:
        calls.append(1)
        return {"when": [object()]}

    raised = execute(runs, step, RetryPolicy(max_retries=5))
    assert isinstance(raised, EncodeError)
    assert raised.path == "$.when[0]"
    assert calls == [1]


def test_an_exit_is_tried_again_like_an_error(runs: Runs) -> None:
    step = Fragile(1, SystemExit(3))
    assert execute(runs, step, RetryPolicy(max_retries=1)) == "made it"
    raised = execute(runs, Fragile(2, SystemExit(3)), RetryPolicy(max_retries=1))
    assert isinstance(raised, StepPanicError)


def test_a_try_that_takes_too_long_counts_as_failed(runs: Runs) -> None:
    calls: list[int] = []

    def slow_at_first() -> str:
        calls.append(1)
        deadline = monotonic() + (0.03 if len(calls) == 1 else 0.0)
        while monotonic() < deadline:
            pass
        return "in time"

    policy = RetryPolicy(step_timeout=20 * MS)
    raised = execute(runs, slow_at_first, policy)
    assert isinstance(raised, StepTimeoutError)
    assert (raised.step_key, raised.timeout_s) == ("fragile/v1", 0.02)
    assert raised.elapsed_s >= 0.02
    assert runs.rows(STEPS)[0][:2] == ("failed", 1)
    calls.clear()
    again = RetryPolicy(max_retries=1, step_timeout=20 * MS)
    assert execute(runs, slow_at_first, again) == "in time"
    assert len(calls) == 2


def test_a_try_in_time_is_not_a_timeout(runs: Runs) -> None:
    retry = RetryPolicy(step_timeout=timedelta(minutes=1))
    assert execute(runs, Fragile(0), retry) == "made it"


def test_a_backoff_that_raises_fails_the_run(runs: Runs) -> None:
    def backoff(failed: int) -> timedelta:
        raise LookupError("no table of waits")

    step = Fragile(1)
    assert execute(runs, step, RetryPolicy(max_retries=5, backoff=backoff)) is step.error
    assert "no table of waits" in str(step.error.__cause__)
