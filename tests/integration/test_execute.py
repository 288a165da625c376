"""Steps: executed once per run and key, and answered from their memo ever after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, MsgspecCodec, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

STEPS = """
    SELECT step_key, status, input_json, output_json, error_text, attempts, codec
    FROM flows.steps ORDER BY step_key
"""


class Ledger:
    """Counts how often a step was really executed."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def double(self, n: int) -> int:
        self.calls.append(n)
        return 2 * n


def workflow(function: Callable[..., Any], **options: Any) -> tuple[Registry, Any]:
    """Return a registry of one workflow, and its handle."""
    registry = Registry()
    return registry, registry.workflow("demo", **options)(function)


def test_a_step_is_given_its_input_and_its_value_is_returned(runs: Runs) -> None:
    registry, demo = workflow(lambda wf, n: wf.execute("double/v1", lambda x: 2 * x, n))
    assert runs.output(runs.execute(registry, demo, 21)) == 42


def test_a_finished_step_is_not_executed_again_when_the_run_resumes(runs: Runs) -> None:
    ledger, seen = Ledger(), []

    def function(wf: Context, n: int) -> int:
        seen.append(wf.execute("double/v1", ledger.double, n))
        wf.wait_for_event("go/v1", "Go")
        seen.append(wf.execute("double/v2", ledger.double, seen[-1]))
        return seen[-1]

    registry, demo = workflow(function)
    key = runs.execute(registry, demo, 1)
    assert (seen, ledger.calls) == ([2], [1])
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.output(key) == 4
    assert seen == [2, 2, 4]
    assert ledger.calls == [1, 2]


def test_durable_execute_is_another_name(runs: Runs) -> None:
    registry, demo = workflow(lambda wf, n: wf.durable_execute("double/v1", lambda x: 2 * x, n))
    assert runs.output(runs.execute(registry, demo, 21)) == 42
    assert Context.durable_execute is Context.execute


def test_the_memo_holds_input_and_output(runs: Runs) -> None:
    registry, demo = workflow(lambda wf, n: wf.execute("double/v1", lambda x: [x, x], n))
    runs.execute(registry, demo, 3)
    assert runs.rows(STEPS) == [("double/v1", "completed", 3, [3, 3], None, 1, None)]
    [row] = runs.rows(
        "SELECT length(input_digest), started_at <= updated_at, claim FROM flows.steps"
    )
    assert row == (16, True, 1)


def test_the_memo_is_stored_by_the_codec_of_the_workflow(runs: Runs) -> None:
    registry, demo = workflow(
        lambda wf, n: wf.execute("double/v1", lambda x: 2 * x, n), codec=MsgspecCodec()
    )
    key = runs.execute(registry, demo, 3)
    [row] = runs.rows("SELECT input_bytes, output_bytes, input_json, codec FROM flows.steps")
    assert row == (b"\x03", b"\x06", None, "msgpack")
    assert runs.output(key) == 6


def test_a_large_binary_memo_is_replayed_as_it_was(runs: Runs) -> None:
    value, seen = bytes(range(256)) * 1000, []

    def function(wf: Context) -> None:
        seen.append(wf.execute("blob/v1", lambda: value))
        wf.wait_for_event("go/v1", "Go")

    registry, demo = workflow(function, codec=MsgspecCodec())
    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert seen == [value, value]


def test_none_is_a_memo_like_any_other(runs: Runs) -> None:
    calls: list[Any] = []

    def function(wf: Context) -> None:
        for _ in range(2):
            assert wf.execute("none/v1", calls.append, None) is None
        wf.wait_for_event("go/v1", "Go")

    registry, demo = workflow(function)
    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert calls == [None]


def test_a_step_without_input_is_called_with_nothing(runs: Runs) -> None:
    registry, demo = workflow(lambda wf: wf.execute("answer/v1", lambda: 42))
    assert runs.output(runs.execute(registry, demo)) == 42


def test_any_callable_is_a_step(runs: Runs) -> None:
    ledger = Ledger()

    def function(wf: Context, n: int) -> list[Any]:
        return [
            wf.execute("method", ledger.double, n),
            wf.execute("builtin", abs, -n),
            wf.execute("partial", partial(pow, n), 2),
            wf.execute("class", str, n),
        ]

    registry, demo = workflow(function)
    assert runs.output(runs.execute(registry, demo, 3)) == [6, 3, 9, "3"]


def test_the_same_call_again_in_one_attempt_returns_the_memo(runs: Runs) -> None:
    ledger = Ledger()

    def function(wf: Context, n: int) -> list[int]:
        by_lambda = [wf.execute("lambda", lambda x: ledger.double(x) + 0, n) for _ in range(2)]
        by_partial = [wf.execute("partial", partial(Ledger.double, ledger), n) for _ in range(2)]
        by_method = [wf.execute("method", ledger.double, n) for _ in range(2)]
        return by_lambda + by_partial + by_method

    registry, demo = workflow(function)
    assert runs.output(runs.execute(registry, demo, 5)) == [10] * 6
    assert ledger.calls == [5, 5, 5]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (lambda wf: wf.execute("a", abs, -2), "other input"),
        (lambda wf: wf.execute("a", str, -1), "another step function"),
        (lambda wf: wf.execute("a", lambda n: n, -1), "another step function"),
        (lambda wf: wf.execute("a", lambda: 1), "another step function"),
    ],
)
def test_a_key_that_stands_for_another_call_is_refused(
    runs: Runs, second: Callable[[Context], Any], reason: str
) -> None:
    def function(wf: Context) -> None:
        wf.execute("a", abs, -1)
        second(wf)

    registry, demo = workflow(function)
    key = runs.execute(registry, demo)
    assert "ContextError: step key 'a' was used with" in runs.error(key)
    assert reason in runs.error(key)
    # What the key stood for first is kept.
    assert [row[:4] for row in runs.rows(STEPS)] == [("a", "completed", -1, 1)]


@pytest.mark.parametrize("key", ["", None, "a\0b", "\ud800", "x" * 1001, 5])
def test_a_key_that_cannot_be_stored_is_refused_before_the_step_is_called(
    runs: Runs, key: Any
) -> None:
    ledger = Ledger()
    registry, demo = workflow(lambda wf: wf.execute(key, ledger.double, 1))
    runs.start(registry)
    run = runs.begin(demo)
    runs.wait_for(run, "failed")
    assert runs.error(run).startswith("flows.errors.ContextError: step_key ")
    assert ledger.calls == []


def test_the_longest_key_is_stored(runs: Runs) -> None:
    # Not compressible, as keys in an index are compressed before they are measured.
    key = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(333))
    registry, demo = workflow(lambda wf: wf.execute(key, lambda: 1))
    assert runs.output(runs.execute(registry, demo)) == 1
    assert [row[0] for row in runs.rows(STEPS)] == [key]


def test_an_input_that_cannot_be_kept_fails_the_step_before_it_is_called(runs: Runs) -> None:
    ledger = Ledger()
    registry, demo = workflow(lambda wf: wf.execute("a", ledger.double, {"n": float("nan")}))
    key = runs.execute(registry, demo)
    expected = "EncodeError: the input of step 'a': codec 'json' cannot keep $.n"
    assert expected in runs.error(key)
    assert ledger.calls == []
    assert runs.rows(STEPS) == []


def test_an_async_step_is_refused(runs: Runs) -> None:
    async def later() -> int:
        return 1

    registry, demo = workflow(lambda wf: wf.execute("a", later))
    assert "ConfigError: step " in runs.error(runs.execute(registry, demo))


def test_a_workflow_can_catch_what_a_step_raises(runs: Runs) -> None:
    def fragile() -> int:
        raise KeyError("scene")

    def function(wf: Context) -> str:
        try:
            wf.execute("fragile/v1", fragile)
        except KeyError as error:
            return f"caught {error}"
        return "nothing"

    registry, demo = workflow(function)
    assert runs.output(runs.execute(registry, demo)) == "caught 'scene'"
    [(key, status, given, output, error, attempts, _)] = runs.rows(STEPS)
    assert (key, status, given, output, attempts) == ("fragile/v1", "failed", None, None, 1)
    assert error.startswith("KeyError: 'scene'\n\nTraceback")


def test_a_failed_step_is_executed_again_when_the_run_resumes(runs: Runs) -> None:
    calls: list[int] = []

    def fragile() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return 7

    def function(wf: Context) -> int:
        try:
            return wf.execute("fragile/v1", fragile)
        except ValueError:
            wf.wait_for_event("go/v1", "Go")
            raise

    registry, demo = workflow(function)
    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.output(key) == 7
    assert [row[:6] for row in runs.rows(STEPS)] == [("fragile/v1", "completed", None, 7, None, 1)]
