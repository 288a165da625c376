"""Primitives where they cannot work: refused with the reason, and nothing is stuck."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, ContextError, Registry, RunKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

USES: dict[str, Callable[[Context], Any]] = {
    "execute": lambda wf: wf.execute("a", lambda: 1),
    "sleep": lambda wf: wf.sleep("b", timedelta(hours=1)),
    "wait_for_event": lambda wf: wf.wait_for_event("c", "Number"),
    "random_uuidv7": lambda wf: wf.random_uuidv7("d"),
    "random_uint64": lambda wf: wf.random_uint64("e"),
}
every_primitive = pytest.mark.parametrize("use", USES.values(), ids=USES)

MEMOS = """
    SELECT (SELECT count(*) FROM flows.steps), (SELECT count(*) FROM flows.waits),
        (SELECT count(*) FROM flows.random)
"""


def refused(runs: Runs, function: Callable[[Context], Any]) -> ContextError:
    """Execute a workflow that catches what is refused, and return that."""
    caught: list[ContextError] = []
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        try:
            function(wf)
        except ContextError as error:
            caught.append(error)
        return "went on"

    key = runs.execute(registry, demo)
    assert runs.output(key) == "went on"
    [error] = caught
    return error


@every_primitive
def test_a_primitive_in_a_step_is_refused(runs: Runs, use: Callable[[Context], Any]) -> None:
    error = refused(runs, lambda wf: wf.execute("outer", lambda: use(wf)))
    assert "inside step 'outer'" in str(error)
    assert runs.rows(MEMOS) == [(1, 0, 0)]
    assert runs.rows("SELECT step_key, status FROM flows.steps") == [("outer", "failed")]


@pytest.mark.parametrize("use", [*USES.values(), lambda wf: wf.tx], ids=[*USES, "tx"])
def test_a_primitive_in_another_thread_is_refused(
    runs: Runs, use: Callable[[Context], Any]
) -> None:
    def in_a_thread(wf: Context) -> None:
        raised: list[BaseException] = []

        def call() -> None:
            try:
                use(wf)
            except ContextError as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        raise raised[0]

    assert "only in the thread that runs the workflow" in str(refused(runs, in_a_thread))
    assert runs.rows(MEMOS) == [(0, 0, 0)]


@pytest.mark.parametrize("use", [*USES.values(), lambda wf: wf.tx], ids=[*USES, "tx"])
def test_a_primitive_after_the_end_of_the_attempt_is_refused(
    runs: Runs, use: Callable[[Context], Any]
) -> None:
    registry, kept = Registry(), []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        kept.append(wf)

    runs.execute(registry, demo)
    with pytest.raises(ContextError, match="this attempt has ended"):
        use(kept[0])
    assert runs.rows(MEMOS) == [(0, 0, 0)]


def test_a_statement_on_the_transaction_from_another_thread_is_refused(runs: Runs) -> None:
    def in_a_thread(wf: Context) -> None:
        tx, raised = wf.tx, []

        def call() -> None:
            try:
                tx.execute("SELECT 1")
            except ContextError as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        raise raised[0]

    assert "only in the thread" in str(refused(runs, in_a_thread))


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "x" * 1001, None])
@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda wf, key: wf.execute(key, lambda: 1), "step_key"),
        (lambda wf, key: wf.sleep(key, timedelta(hours=1)), "wait_key"),
        (lambda wf, key: wf.wait_for_event(key, "Number"), "wait_key"),
        (lambda wf, key: wf.wait_for_event("c", key), "event_name"),
        (lambda wf, key: wf.random_uuidv7(key), "key"),
        (lambda wf, key: wf.random_uint64(key), "key"),
    ],
)
def test_a_key_that_cannot_be_stored_is_refused(
    runs: Runs, use: Callable[[Context, Any], Any], name: str, key: Any
) -> None:
    assert str(refused(runs, lambda wf: use(wf, key))).startswith(f"{name} ")
    assert runs.rows(MEMOS) == [(0, 0, 0)]


@pytest.mark.parametrize("duration", [5, 0.5, None, "1s"])
def test_a_sleep_takes_a_duration(runs: Runs, duration: Any) -> None:
    error = refused(runs, lambda wf: wf.sleep("cooldown/v1", duration))
    assert "sleep takes a timedelta" in str(error)


def test_a_wait_key_stands_for_a_sleep_or_a_wait_not_both(runs: Runs) -> None:
    def sleeps_under_a_key_of_a_wait(wf: Context) -> None:
        runs.publish(wf.run_key, "Number", 1)
        wf.wait_for_event("number/v1", "Number")
        wf.sleep("number/v1", timedelta(hours=1))

    assert "type 'event'" in str(refused(runs, sleeps_under_a_key_of_a_wait))


@pytest.mark.parametrize("first", [0, 1])
def test_a_random_key_stands_for_one_kind_of_value(runs: Runs, first: int) -> None:
    def both(wf: Context) -> None:
        draw = [wf.random_uuidv7, wf.random_uint64]
        draw[first]("salt/v1")
        draw[1 - first]("salt/v1")

    assert "random key 'salt/v1' stands for" in str(refused(runs, both))
    assert runs.rows("SELECT kind FROM flows.random") == [(["uuidv7", "uint64"][first],)]


def test_the_context_tells_what_it_executes(runs: Runs) -> None:
    seen: list[Any] = []
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        seen.append((wf.run_key, wf.run_id, wf.workflow_name, wf.attempt))
        wf.wait_for_event("go/v1", "Go")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert seen == [(key, key.run_id, "demo", 1)] * 2
    assert isinstance(seen[0][0], RunKey)
