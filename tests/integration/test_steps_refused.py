"""What a step is refused for, and what is told of one that did not end well."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from flows import Context, Registry, RetryPolicy, RunRetryPolicy
from tests.integration.ledger import execute
from tests.running import Gate, Runs
from tests.waiting import wait_until


def double(number: int) -> int:
    return 2 * number


def closures(wf: Context) -> list[int]:
    return [wf.execute("x/v1", lambda: number) for number in range(2)]  # noqa: B023


def defaults(wf: Context) -> list[int]:
    def give(given: int) -> int:
        def step(number: int = given) -> int:
            return number

        return wf.execute("x/v1", step)

    return [give(number) for number in range(2)]


def partials(wf: Context) -> list[int]:
    return [wf.execute("x/v1", partial(double, number)) for number in range(2)]


def keyword_partials(wf: Context) -> list[int]:
    return [wf.execute("x/v1", partial(double, number=number)) for number in range(2)]


@pytest.mark.parametrize("function", [closures, defaults, partials, keyword_partials])
def test_a_key_used_with_other_captured_values_is_refused(runs: Runs, function: Any) -> None:
    error = runs.error(execute(runs, function))
    assert "captured other values" in error
    assert "put what differs into the key" in error


def test_a_key_is_used_again_where_nothing_was_captured_or_nothing_is_kept(runs: Runs) -> None:
    def function(wf: Context) -> list[int]:
        seen: list[int] = []
        for number in range(3):
            try:
                # Fails with other values, until it does not.
                seen.append(wf.execute("x/v1", lambda: 1 // (number // 2)))  # noqa: B023
            except ZeroDivisionError:
                seen.append(-1)
        given = [wf.execute("y/v1", lambda: len(seen)) for _ in range(2)]
        return seen + given

    assert runs.output(execute(runs, function)) == [-1, -1, 1, 3, 3]


@pytest.mark.parametrize(
    "call",
    [
        lambda wf: wf.execute("x/v1", double, 1, 3),
        lambda wf: wf.execute("x/v1", double, 1, retry=RunRetryPolicy(max_attempts=2)),
        lambda wf: wf.execute("x/v1", lambda: 1, RetryPolicy()),
    ],
)
def test_what_is_no_policy_is_refused(runs: Runs, call: Any) -> None:
    assert "takes a RetryPolicy as retry=" in runs.error(execute(runs, call))


def give_one(_failed: int) -> Any:
    return 1


def leave(_failed: int) -> Any:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("backoff", "told"),
    [(give_one, "returns a timedelta"), (leave, "SystemExit"), (lambda _: 1 // 0, "by zero")],
)
def test_a_broken_backoff_ends_the_tries_and_hides_no_error(
    runs: Runs, backoff: Any, told: str
) -> None:
    def fail() -> None:
        raise LookupError("the step's own")

    def function(wf: Context) -> None:
        wf.execute("x/v1", fail, retry=RetryPolicy(max_retries=3, backoff=backoff))

    policy = RunRetryPolicy(max_attempts=3, backoff=backoff)
    for workflow, options in ((function, {}), (lambda _: fail(), {"run_retry": policy})):
        key = execute(runs, workflow, **options)
        assert runs.status(key).status == "failed"
        error = runs.error(key)
        assert "LookupError: the step's own" in error
        assert told in error


def test_a_step_that_is_cancelled_and_does_not_end_is_told_as_cancelled(runs: Runs) -> None:
    registry, gate = Registry(), Gate()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.execute("stuck/v1", gate.pass_through)

    key = runs.begin(demo)
    runs.start(registry, timeout_grace=timedelta(milliseconds=50))
    gate.wait_for_arrival()
    runs.client.cancel_run_tx(runs.connection, key)
    runs.wait_for(key, "cancelled")
    errors = "SELECT error_text FROM flows.steps"
    wait_until(lambda: bool(runs.rows(errors)), what="the step is recorded")
    gate.open()
    [(error,)] = runs.rows(errors)
    assert "the run was cancelled" in error
    assert "pass_through" in error
    assert "StepTimeoutError" not in error
