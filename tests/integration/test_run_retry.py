"""Retries of runs: a durable sleep between attempts, memos that replay, and an end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import (
    Context,
    Registry,
    RetryPolicy,
    RunRetryPolicy,
    TerminalError,
    exponential_backoff,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

HOUR = timedelta(hours=1)


class Failing:
    """A workflow that fails its first attempts, after a step."""

    name = "demo"

    def __init__(self, failures: int, error: Callable[[int], BaseException] | None = None) -> None:
        self.failures = failures
        self.error = error or (lambda attempt: ValueError(f"attempt {attempt}"))
        self.attempts: list[int] = []
        self.steps = 0

    def run(self, wf: Context, inp: Any) -> str:
        self.attempts.append(wf.attempt)
        wf.execute("step/v1", self.step)
        if len(self.attempts) <= self.failures:
            raise self.error(wf.attempt)
        return f"made it in attempt {wf.attempt}"

    def step(self) -> None:
        self.steps += 1


def registered(workflow: Failing, policy: RunRetryPolicy | None) -> tuple[Registry, Any]:
    registry = Registry()
    return registry, registry.register(workflow, run_retry=policy)


def wake(runs: Runs) -> None:
    """Let the sleep between two attempts be over."""
    runs.connection.execute("UPDATE flows.runs SET next_wake_at = now()")


def test_without_a_policy_the_first_error_is_the_last(runs: Runs) -> None:
    workflow = Failing(1)
    registry, demo = registered(workflow, None)
    key = runs.execute(registry, demo)
    assert (runs.status(key).status, runs.status(key).attempts) == ("failed", 1)
    assert workflow.attempts == [1]


def test_a_failed_run_sleeps_for_the_backoff_and_is_tried_again(runs: Runs) -> None:
    workflow = Failing(1)
    registry, demo = registered(workflow, RunRetryPolicy(2, lambda failed: failed * HOUR))
    key = runs.execute(registry, demo)
    status = runs.status(key)
    assert (status.status, status.attempts) == ("sleeping", 1)
    assert status.error is not None
    assert status.error.startswith("ValueError: attempt 1")
    assert status.next_wake_at == status.updated_at + HOUR
    assert runs.execute_due(registry) == 0
    wake(runs)
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == "made it in attempt 2"
    assert (runs.status(key).error, runs.status(key).attempts) == (None, 1)


def test_memos_replay_in_the_next_attempt(runs: Runs) -> None:
    workflow = Failing(2)
    registry, demo = registered(workflow, RunRetryPolicy(max_attempts=3))
    key = runs.execute(registry, demo)
    assert runs.output(key) == "made it in attempt 3"
    assert workflow.attempts == [1, 2, 3]
    assert workflow.steps == 1


def test_a_run_whose_attempts_are_spent_has_failed_and_is_never_executed_again(runs: Runs) -> None:
    workflow = Failing(5)
    registry, demo = registered(workflow, RunRetryPolicy(max_attempts=3))
    key = runs.execute(registry, demo)
    status = runs.status(key)
    assert (status.status, status.attempts, status.next_wake_at) == ("failed", 3, None)
    assert runs.error(key).startswith("ValueError: attempt 3")
    runs.publish(key, "Anything")
    assert runs.execute_due(registry) == 0
    assert workflow.attempts == [1, 2, 3]


def test_the_backoff_is_asked_by_the_failed_attempts_from_1(runs: Runs) -> None:
    asked: list[int] = []

    def backoff(failed: int) -> timedelta:
        asked.append(failed)
        return timedelta()

    registry, demo = registered(Failing(5), RunRetryPolicy(4, backoff))
    runs.execute(registry, demo)
    assert asked == [1, 2, 3]


def test_a_worker_wakes_for_the_next_attempt(runs: Runs) -> None:
    ms = timedelta(milliseconds=1)
    registry, demo = registered(
        Failing(2), RunRetryPolicy(3, exponential_backoff(50 * ms, 100 * ms))
    )
    runs.start(registry, poll_interval=HOUR, max_poll_interval=HOUR)
    key = runs.begin(demo)
    status = runs.wait_for(key, "completed")
    assert status.updated_at - status.created_at >= 150 * ms


@pytest.mark.parametrize("is_in_step", [False, True])
def test_a_terminal_error_fails_the_run_at_once(runs: Runs, is_in_step: bool) -> None:
    registry, calls = Registry(), []

    @registry.workflow("demo", run_retry=RunRetryPolicy(max_attempts=5))
    def demo(wf: Context) -> None:
        if is_in_step:
            wf.execute("step/v1", fail, retry=RetryPolicy(max_retries=5))
        fail()

    def fail() -> None:
        calls.append(1)
        raise TerminalError("no use")

    key = runs.execute(registry, demo)
    assert (runs.status(key).status, runs.status(key).attempts) == ("failed", 1)
    assert runs.error(key).startswith("flows.errors.TerminalError: no use")
    assert len(calls) == 1


def test_a_terminal_error_that_was_caught_is_none(runs: Runs) -> None:
    workflow = Failing(1, lambda attempt: ValueError(TerminalError("caught")))
    registry, demo = registered(workflow, RunRetryPolicy(max_attempts=2))
    assert runs.output(runs.execute(registry, demo)) == "made it in attempt 2"


def test_sleeps_and_waits_of_earlier_attempts_replay_too(runs: Runs) -> None:
    registry, attempts = Registry(), []

    @registry.workflow("demo", run_retry=RunRetryPolicy(max_attempts=2))
    def demo(wf: Context) -> Any:
        wf.sleep("cooldown/v1", HOUR)
        number = wf.wait_for_event("number/v1", "Number")
        attempts.append(number)
        if wf.attempt == 1:
            raise ValueError("once")
        return number

    key = runs.execute(registry, demo)
    runs.publish(key, "Number", 3)
    runs.connection.execute("UPDATE flows.waits SET wake_at = now()")
    wake(runs)
    runs.execute_due(registry)
    assert runs.output(key) == 3
    assert attempts == [3, 3]


def test_a_backoff_that_raises_ends_the_retries_and_says_why(runs: Runs) -> None:
    def backoff(failed: int) -> timedelta:
        raise LookupError("no table of waits")

    registry, demo = registered(Failing(1), RunRetryPolicy(5, backoff))
    key = runs.execute(registry, demo)
    assert runs.status(key).status == "failed"
    assert runs.error(key).startswith("ValueError: attempt 1")
    assert "its backoff failed: LookupError('no table of waits')" in runs.error(key)


@pytest.mark.parametrize("wait", [5, None, timedelta.max])
def test_a_backoff_that_gives_no_usable_wait_fails_the_run(runs: Runs, wait: Any) -> None:
    registry, demo = registered(Failing(1), RunRetryPolicy(5, lambda failed: wait))
    key = runs.execute(registry, demo)
    assert runs.status(key).status == "failed"


def test_a_negative_backoff_is_no_wait(runs: Runs) -> None:
    registry, demo = registered(Failing(1), RunRetryPolicy(2, lambda failed: -HOUR))
    assert runs.output(runs.execute(registry, demo)) == "made it in attempt 2"


def test_an_input_that_does_not_fit_fails_the_run(runs: Runs) -> None:
    registry, calls = Registry(), []

    @registry.workflow("demo")
    def demo(wf: Context, job: dict[str, int]) -> None:
        calls.append(job)

    key = runs.execute(registry, "demo", {"n": "three"})
    assert runs.status(key).status == "failed"
    error = runs.error(key)
    assert error.startswith(
        "flows.errors.DecodeError: the input of workflow 'demo':"
        " codec 'json' cannot decode into dict[str"
    )
    assert "$[...]" in error
    assert calls == []


def test_an_input_of_an_unknown_codec_fails_the_run(runs: Runs) -> None:
    registry, demo = registered(Failing(0), None)
    key = runs.begin(demo, 1)
    runs.connection.execute("UPDATE flows.runs SET codec = 'pickle'")
    runs.execute_due(registry)
    assert runs.status(key).status == "failed"
    assert "no codec named 'pickle' is registered" in runs.error(key)


def test_an_output_of_another_type_than_annotated_fails_the_run(runs: Runs) -> None:
    registry, text = Registry(), "three"

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        wrong: Any = text
        return wrong  # type: ignore[no-any-return]

    key = runs.execute(registry, demo)
    assert "codec 'json' cannot decode into int" in runs.error(key)


def test_an_output_that_cannot_be_kept_fails_the_run_with_its_path(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        return {"frames": [object()]}

    assert "cannot keep $.frames[0]" in runs.error(runs.execute(registry, demo))
