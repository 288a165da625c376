"""An attempt is freed when it ends: nothing of it is left to the garbage collector."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry
from flows.attempt import Attempt
from flows.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

EACH = 3


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("step")
    def step(wf: Context) -> int:
        return wf.execute("one/v1", lambda: 1)

    @registry.workflow("typed")
    def typed(wf: Context) -> int:
        def step() -> int:
            return wf.attempt

        return wf.execute("one/v1", step)

    @registry.workflow("write")
    def write(wf: Context) -> None:
        wf.tx.execute("SELECT 1")

    @registry.workflow("nap")
    def nap(wf: Context) -> None:
        wf.sleep("nap/v1", timedelta(hours=1))

    @registry.workflow("wait")
    def wait(wf: Context) -> Any:
        return wf.wait_for_event("go/v1", "Go")

    @registry.workflow("fail")
    def fail(wf: Context) -> None:
        raise ValueError

    return registry


def attempts_and_journals() -> list[object]:
    return [each for each in gc.get_objects() if type(each) in (Attempt, Journal)]


@pytest.fixture
def earlier() -> Iterator[list[object]]:
    """What other tests keep, with the collector at rest until the end of this one."""
    gc.collect()
    gc.disable()
    yield attempts_and_journals()
    gc.enable()


@pytest.mark.parametrize("name", ["step", "typed", "write", "nap", "wait", "fail"])
def test_an_attempt_that_has_ended_is_freed_without_the_collector(
    runs: Runs, registry: Registry, name: str, earlier: list[object]
) -> None:
    for _ in range(EACH):
        runs.begin(name)
    assert runs.execute_due(registry) >= EACH
    assert [each for each in attempts_and_journals() if each not in earlier] == []
