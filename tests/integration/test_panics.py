"""Exits and errors of user code: they end their run, and never the worker."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from flows import Context, Registry, RunRetryPolicy, StepPanicError

if TYPE_CHECKING:
    from tests.running import Runs


class OwnExit(BaseException):
    """An exit of the user's own."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class MuteExit(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class LockedError(Exception):
    """Cannot be pickled, as it holds a lock."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


EXITS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OwnExit("bye"), MuteExit()]
ERRORS = [MuteError(), LockedError(), ValueError("a\0b\ud800"), RecursionError(), MemoryError()]


def fail(error: BaseException) -> NoReturn:
    raise error


def run_beside(runs: Runs, registry: Registry, failing: Any) -> str:
    """Run a workflow that fails on a worker, then another; return the error of the first.

    The second shows that the worker has survived.
    """

    @registry.workflow("healthy")
    def healthy(wf: Context) -> str:
        return "well"

    key = runs.begin(failing)
    runs.start(registry)
    runs.wait_for(key, "failed")
    beside = runs.begin(healthy)
    runs.wait_for(beside, "completed")
    return runs.error(key)


@pytest.mark.parametrize("exit_", EXITS, ids=lambda error: type(error).__name__)
def test_an_exit_in_a_step_ends_its_run_and_not_the_worker(
    runs: Runs, exit_: BaseException
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.execute("exit/v1", lambda: fail(exit_))

    error = run_beside(runs, registry, demo)
    assert error.startswith(f"flows.errors.StepPanicError: step panicked: {type(exit_).__name__}")
    assert "in fail" in error
    [(status, text)] = runs.rows("SELECT status, error_text FROM flows.steps")
    assert status == "failed"
    assert "step panicked" in text


@pytest.mark.parametrize("exit_", EXITS, ids=lambda error: type(error).__name__)
def test_an_exit_in_a_workflow_ends_its_run_and_not_the_worker(
    runs: Runs, exit_: BaseException
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        fail(exit_)

    error = run_beside(runs, registry, demo)
    name = type(exit_).__name__
    assert error.startswith(f"flows.errors.WorkflowPanicError: workflow panicked: {name}")
    assert "in fail" in error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("is_in_step", [True, False])
def test_any_error_is_recorded_and_ends_its_run_only(
    runs: Runs, error: Exception, is_in_step: bool
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        if is_in_step:
            wf.execute("fail/v1", lambda: fail(error))
        fail(error)

    text = run_beside(runs, registry, demo)
    assert type(error).__name__ in text.partition("\n")[0]
    assert "in fail" in text


def test_the_exit_and_its_stack_are_there_for_whoever_catches_it(runs: Runs) -> None:
    caught: list[StepPanicError] = []
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        try:
            wf.execute("exit/v1", lambda: sys.exit("enough"))
        except StepPanicError as panic:
            caught.append(panic)
        return "went on"

    assert runs.output(runs.execute(registry, demo)) == "went on"
    [panic] = caught
    assert isinstance(panic.value, SystemExit)
    assert panic.value.code == "enough"
    assert "SystemExit: enough" in panic.stack
    assert str(panic) == "step panicked: SystemExit: enough"
    assert panic.__cause__ is panic.value


def test_a_panic_is_tried_again_where_the_policy_says_so(runs: Runs) -> None:
    registry = Registry()
    attempts: list[int] = []

    @registry.workflow("demo", run_retry=RunRetryPolicy(max_attempts=2))
    def demo(wf: Context) -> str:
        attempts.append(wf.attempt)
        if wf.attempt == 1:
            sys.exit(1)
        return "well"

    assert runs.output(runs.execute(registry, demo)) == "well"
    assert attempts == [1, 2]


def test_an_error_text_without_end_is_bounded(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        fail(ValueError("x" * 10_000_000))

    error = runs.error(runs.execute(registry, demo))
    assert len(error) < 20_000
    assert error.startswith("ValueError: xxx")
