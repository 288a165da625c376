"""Drift: steps whose input is not what their memo was made from; runs replayed on other code."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, JSONCodec, MsgspecCodec, Registry, RetryPolicy, UnknownRunError
from flows.database import connect
from flows.replay import Divergence, Replay, read_history, replay
from tests.integration.command import flows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flows import RunKey
    from tests.running import Runs

HOUR = timedelta(hours=1)
POLICIES: Any = ["warn", "error"]


def waiter(number: int, **options: Any) -> Registry:
    """A workflow whose step is given a number, and which then waits."""
    registry = Registry()

    @registry.workflow("demo", **options)
    def demo(wf: Context) -> Any:
        doubled = wf.execute("double/v1", lambda n: n * 2, number)
        return [doubled, wf.wait_for_event("wait/v1", "go")]

    return registry


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_whose_input_has_changed_is_reported(
    runs: Runs, caplog: pytest.LogCaptureFixture, policy: Any
) -> None:
    key = runs.begin("demo")
    runs.execute_due(waiter(1))
    runs.publish(key, "go", "on")
    runs.execute_due(waiter(7, on_drift=policy))
    if policy == "warn":
        assert runs.output(key) == [2, "on"]
        said = caplog.text
    else:
        status = runs.status(key)
        assert status.status == "failed"
        said = str(status.error)
        assert "DriftError" in said
    assert f"run {key}: the memo of step 'double/v1' was made from other input" in said
    [(digest,)] = runs.rows("SELECT encode(input_digest, 'hex') FROM flows.steps")
    assert f"digest {digest}" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {}), ({"codec": JSONCodec()}, {"codec": MsgspecCodec()})],
    ids=["the same input", "another codec"],
)
def test_nothing_is_reported_where_the_input_is_the_same_or_cannot_be_compared(
    runs: Runs, caplog: pytest.LogCaptureFixture, before: Any, after: Any
) -> None:
    key = runs.begin("demo")
    runs.execute_due(waiter(1, **before))
    runs.publish(key, "go", "on")
    runs.execute_due(waiter(1, on_drift="error", **after))
    assert runs.output(key) == [2, "on"]
    assert "other input" not in caplog.text


def test_a_memo_without_a_digest_is_not_compared(runs: Runs) -> None:
    key = runs.begin("demo")
    runs.execute_due(waiter(1))
    runs.connection.execute("UPDATE flows.steps SET input_digest = NULL")
    runs.publish(key, "go", "on")
    runs.execute_due(waiter(7, on_drift="error"))
    assert runs.output(key) == [2, "on"]


def replayed(runs: Runs, key: RunKey, function: Callable[..., Any]) -> Replay:
    """Replay a run on other code."""
    registry = Registry()
    workflow = registry.workflow("demo")(function)
    with connect(runs.dsn) as connection:
        return replay(connection, workflow, read_history(connection, "flows", key))


def one(wf: Context, n: int) -> Any:
    a = wf.execute("a/v1", lambda x: x + 1, n)
    wf.sleep("nap/v1", timedelta(milliseconds=1))
    uid, salt = wf.random_uuidv7("uid/v1"), wf.random_uint64("salt/v1")
    word = wf.wait_for_event("word/v1", "word", str)
    return [a, str(uid), salt, word]


def finished(runs: Runs, function: Callable[..., Any] = one, status: str = "completed") -> RunKey:
    """Execute a run to its end."""
    registry = Registry()
    workflow = registry.workflow("demo")(function)
    key = runs.begin(workflow, 1)
    runs.publish(key, "word", "hello")
    runs.start(registry)
    runs.wait_for(key, status)
    return key


def test_the_same_code_does_the_same(runs: Runs) -> None:
    key = finished(runs)
    before = runs.rows("SELECT * FROM flows.runs") + runs.rows("SELECT * FROM flows.steps")
    assert replayed(runs, key, one) == Replay("returned", [])
    assert runs.rows("SELECT * FROM flows.runs") + runs.rows("SELECT * FROM flows.steps") == before


def test_other_input_another_output_and_an_unused_memo_are_told(runs: Runs) -> None:
    def other(wf: Context, n: int) -> Any:
        return wf.execute("a/v1", lambda x: x + 1, n + 1)

    result = replayed(runs, finished(runs), other)
    assert result.end == "returned"
    assert [each.what for each in result.divergences] == [
        "step a/v1", "the output", "wait nap/v1", "wait word/v1",
        "random value salt/v1", "random value uid/v1",
    ]  # fmt: skip
    assert "other input" in result.divergences[0].why


@pytest.mark.parametrize(
    ("call", "what", "why"),
    [
        (lambda wf: wf.execute("new/v1", lambda: 1), "step new/v1", "it would be executed now"),
        (lambda wf: wf.sleep("new/v1", HOUR), "wait new/v1", "the run would wait there now"),
        (lambda wf: wf.wait_for_event("new/v1", "e"), "wait new/v1", "would wait there now"),
        (lambda wf: wf.wait_for_event("nap/v1", "e"), "wait nap/v1", "is of type event now"),
        (lambda wf: wf.random_uuidv7("new/v1"), "random value new/v1", "would be drawn now"),
        (lambda wf: wf.random_uint64("new/v1"), "random value new/v1", "would be drawn now"),
        (lambda wf: wf.tx.execute("CREATE TABLE x ()"), "wf.tx", "a statement outside of steps"),
    ],
)
def test_what_would_be_done_anew_is_told_and_not_done(
    runs: Runs, call: Callable[[Context], Any], what: str, why: str
) -> None:
    def other(wf: Context, n: int) -> Any:
        call(wf)

    result = replayed(runs, finished(runs), other)
    assert result.end.startswith("stopped at ")
    [divergence] = result.divergences
    assert divergence.what == what
    assert why in divergence.why


def test_statements_that_read_are_executed(runs: Runs) -> None:
    def reading(wf: Context, n: int) -> Any:
        return wf.tx.execute("SELECT 40 + 2").fetchone()[0]  # type: ignore[index]

    assert replayed(runs, finished(runs, reading), reading) == Replay("returned", [])


def test_a_failed_run_fails_again(runs: Runs) -> None:
    def failing(wf: Context, n: int) -> Any:
        wf.execute("a/v1", lambda x: x, n)
        raise ValueError(f"no {n}")

    key = finished(runs, failing, "failed")
    assert replayed(runs, key, failing) == Replay("raised ValueError: no 1", [])

    def otherwise(wf: Context, n: int) -> Any:
        wf.execute("a/v1", lambda x: x, n)
        raise KeyError(n)

    assert replayed(runs, key, otherwise).divergences == [
        Divergence("the run", "raises KeyError: 1, where it failed with ValueError: no 1")
    ]
    assert replayed(runs, key, lambda wf, n: wf.execute("a/v1", abs, n)).divergences == [
        Divergence("the run", "returns, where it was failed")
    ]


def test_a_step_that_failed_ends_the_replay_without_blame(runs: Runs) -> None:
    def failing(wf: Context, n: int) -> Any:
        return wf.execute("a/v1", lambda x: 1 // 0, n, RetryPolicy())

    result = replayed(runs, finished(runs, failing, "failed"), failing)
    assert not result.divergences
    assert "came to step a/v1, which failed and has no memo: ZeroDivisionError" in result.end


def test_a_waiting_run_is_replayed_as_far_as_it_came(runs: Runs) -> None:
    registry = Registry()
    workflow = registry.workflow("demo")(one)
    key = runs.begin(workflow, 1)
    runs.start(registry)
    runs.wait_for(key, "waiting_event")
    assert replayed(runs, key, one) == Replay("came to wait word/v1, where the run is", [])


def test_the_command_says_where_code_and_run_part(runs: Runs, tmp_path: Path) -> None:
    key = finished(runs)
    source = (
        "from flows import Registry\nregistry = Registry()\n"
        "@registry.workflow('demo')\n"
        "def demo(wf, n):\n    print('in the way')\n    return wf.execute('b/v1', abs, n)\n"
    )
    (tmp_path / "newer.py").write_text(source)
    told = flows("replay", "newer:registry", str(key), "--json", "--dsn", runs.dsn, cwd=tmp_path)
    assert told.returncode == 1, told.stderr
    assert told.stderr == "in the way\n"
    assert json.loads(told.stdout) == {
        "end": "stopped at step b/v1",
        "divergences": [{"what": "step b/v1", "why": "has no memo: it would be executed now"}],
    }


def test_a_run_that_does_not_exist_has_no_history(runs: Runs) -> None:
    with connect(runs.dsn) as connection, pytest.raises(UnknownRunError):
        read_history(connection, "flows", runs.begin("demo")._replace(workflow_name_shard="x_0"))


def asking(event_name: str, **options: Any) -> Registry:
    """A workflow that waits for an event of that name, and then for another one."""
    registry = Registry()

    @registry.workflow("demo", **options)
    def demo(wf: Context) -> Any:
        return [wf.wait_for_event("ask/v1", event_name), wf.wait_for_event("then/v1", "Then")]

    return registry


@pytest.mark.parametrize("policy", POLICIES)
def test_a_wait_that_is_for_another_event_now_is_reported(
    runs: Runs, caplog: pytest.LogCaptureFixture, policy: Any
) -> None:
    key = runs.execute(asking("Go"), "demo")
    runs.publish(key, "Went", 0)
    assert runs.status(key).status == "waiting_event", "it is the old name that wakes it"
    runs.publish(key, "Go", 1)
    runs.execute_due(asking("Went", on_drift=policy))
    said = f"run {key}: wait 'ask/v1' was begun for event 'Go', the code names 'Went' now;"
    if policy == "error":
        assert runs.status(key).status == "failed"
        assert f"DriftError: {said}" in runs.error(key)
        return
    assert said in caplog.text
    assert "the memo is used" in caplog.text
    runs.publish(key, "Then", 3)
    runs.execute_due(asking("Go", on_drift="error"))
    assert runs.output(key) == [1, 3]


def test_an_open_wait_that_its_run_comes_to_again_goes_on_for_the_event_of_now(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    key = runs.execute(asking("Go"), "demo")
    for verb in ("cancel", "retry"):
        assert flows("runs", verb, str(key), "--dsn", runs.dsn).returncode == 0
    runs.execute_due(asking("Went"))
    assert caplog.text.count("the code names 'Went' now") == 1
    assert "the latter is waited for" in caplog.text
    assert runs.rows("SELECT event_name, satisfied_at FROM flows.waits") == [("Went", None)]
    runs.publish(key, "Went", 2)
    runs.publish(key, "Then", 3)
    runs.execute_due(asking("Went", on_drift="error"))
    assert runs.output(key) == [2, 3]


@pytest.mark.parametrize("is_over", [False, True])
def test_an_event_that_was_renamed_under_a_wait_is_told(runs: Runs, is_over: bool) -> None:
    key = runs.execute(asking("Go"), "demo")
    if is_over:
        runs.publish(key, "Go", 1)
        runs.execute_due(asking("Go"))
    (workflow,) = asking("Went")
    result = replayed(runs, key, workflow.function)
    place = "then/v1" if is_over else "ask/v1"
    assert result == Replay(
        f"came to wait {place}, where the run is",
        [Divergence("wait ask/v1", "was for event Go, is for Went now")],
    )
    (workflow,) = asking("Go")
    assert not replayed(runs, key, workflow.function).divergences
