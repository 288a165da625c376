"""`flows runs fork`: what a run had done before a step, however and whenever that was written."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry, RunKey, RunRetryPolicy
from flows.clock import StopSignal
from tests.integration.command import flows, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

STEPS = 40


def fork(runs: Runs, key: RunKey, step: str) -> RunKey:
    done = flows("runs", "fork", str(key), "--from-step", step, "--dsn", runs.dsn)
    assert done.returncode == 0, done.stderr
    return RunKey.parse(done.stdout.strip())


def shown(runs: Runs, key: RunKey) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(told("runs", "show", str(key), "--json", "--dsn", runs.dsn))
    return page


def keys_of(page: dict[str, Any], kind: str) -> list[str]:
    return [made["key"] for made in page[kind]]


def has(runs: Runs, key: RunKey) -> str:
    """Return the names of all that a run has a memo of, as of "step b/v1", and its events."""
    page = shown(runs, key)
    kinds = [keys_of(page, kind) for kind in ("steps", "waits", "random")]
    names = [name.partition("/")[0] for kind in kinds for name in kind]
    return " ".join([*sorted(names), *(event["name"] for event in page["events"])])


def test_steps_are_forked_in_their_order_wherever_their_rows_lie(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("quick")
    def quick(wf: Context) -> None:
        # All are written by one statement, at the end.
        wf.tx.execute("SELECT 1")
        for number in range(STEPS):
            wf.execute(f"step-{number}/v1", str, number)

    key = runs.execute(registry, quick)
    # They come to lie elsewhere without that, too: where rows were deleted before.
    runs.connection.execute("CLUSTER flows.steps USING steps_pkey")
    stored = runs.rows("SELECT step_key FROM flows.steps ORDER BY ctid")
    in_turn = [f"step-{number}/v1" for number in range(STEPS)]
    assert [name for (name,) in stored] != in_turn
    assert keys_of(shown(runs, key), "steps") == in_turn
    for number in (0, 1, STEPS // 2, STEPS - 1):
        forked = fork(runs, key, f"step-{number}/v1")
        assert keys_of(shown(runs, forked), "steps") == in_turn[:number]


def mixed(wf: Context) -> list[int]:
    """A workflow whose steps are written at its end, and its random values at once."""
    wf.tx.execute("SELECT 1")
    wf.execute("a/v1", lambda: 1)
    first = wf.random_uint64("r1/v1")
    wf.wait_for_event("w1/v1", "E1")
    wf.execute("b/v1", lambda: 2)
    second = wf.random_uuidv7("r2/v1").int
    wf.wait_for_event("w2/v1", "E2")
    wf.execute("c/v1", lambda: 3)
    return [first, second]


def register(function: Callable[..., Any], **options: Any) -> Registry:
    registry = Registry()
    registry.workflow("demo", **options)(function)
    return registry


@pytest.mark.parametrize("commit", ["attempt", "step"])
def test_a_fork_draws_anew_what_was_drawn_after_the_step(runs: Runs, commit: str) -> None:
    registry = register(mixed, commit=commit)
    key = runs.begin("demo")
    runs.publish(key, "E1")
    runs.execute_due(registry)
    runs.publish(key, "E2")
    runs.execute_due(registry)
    assert has(runs, key) == "a b c r1 r2 w1 w2 E1 E2"
    assert has(runs, fork(runs, key, "a/v1")) == "E1"
    assert has(runs, fork(runs, key, "c/v1")) == "a b r1 r2 w1 w2 E1 E2"
    forked = fork(runs, key, "b/v1")
    assert has(runs, forked) == "a r1 w1 E1"
    runs.execute_due(registry)
    assert runs.status(forked).status == "waiting_event"
    runs.publish(forked, "E2")
    runs.execute_due(registry)
    (first, second), (kept, anew) = runs.output(key), runs.output(forked)
    assert (kept == first, anew == second) == (True, False)


def test_an_event_that_came_after_the_step_is_not_forked_though_the_memo_was_written_later(
    runs: Runs,
) -> None:
    def late(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        wf.execute("a/v1", lambda: StopSignal().wait(0.2))
        runs.publish(key, "E")
        wf.wait_for_event("w/v1", "E")
        wf.execute("b/v1", lambda: 2)

    registry = register(late)
    key = runs.begin("demo")
    runs.execute_due(registry)
    assert has(runs, fork(runs, key, "a/v1")) == ""
    assert has(runs, fork(runs, key, "b/v1")) == "a w E"


def test_a_fork_is_forked_like_any_other_run(runs: Runs) -> None:
    def steps(wf: Context) -> None:
        for name in "abcd":
            wf.execute(f"{name}/v1", lambda: 1)

    registry = register(steps)
    key = runs.execute(registry, "demo")
    forked = fork(runs, key, "c/v1")
    runs.execute_due(registry)
    assert keys_of(shown(runs, forked), "steps") == ["a/v1", "b/v1", "c/v1", "d/v1"]
    assert has(runs, fork(runs, forked, "b/v1")) == "a"
    assert has(runs, fork(runs, forked, "d/v1")) == "a b c"


def test_a_step_that_failed_and_is_executed_at_every_attempt_keeps_its_place(runs: Runs) -> None:
    failures = [True, False]

    def shaky() -> None:
        if failures.pop(0):
            raise ValueError("not yet")

    def caught(wf: Context) -> None:
        wf.execute("a/v1", lambda: 1)
        try:
            wf.execute("shaky/v1", shaky)
        except ValueError:
            wf.random_uint64("r/v1")
        wf.execute("b/v1", lambda: 2)
        wf.wait_for_event("w/v1", "E")
        wf.execute("c/v1", lambda: 3)

    registry = register(caught)
    key = runs.execute(registry, "demo")
    runs.publish(key, "E")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert has(runs, fork(runs, key, "shaky/v1")) == "a E"
    assert has(runs, fork(runs, key, "b/v1")) == "a r shaky"
    assert has(runs, fork(runs, key, "c/v1")) == "a b r shaky w E"


def test_steps_that_the_code_was_given_under_a_run_are_forked_where_they_stand(runs: Runs) -> None:
    def before(wf: Context) -> None:
        wf.execute("a/v1", lambda: 1)
        wf.execute("b/v1", lambda: 2)
        wf.wait_for_event("w/v1", "E")

    def after(wf: Context) -> None:
        wf.execute("x/v1", lambda: 8)
        wf.execute("y/v1", lambda: 9)
        wf.execute("a/v1", lambda: 1)
        wf.wait_for_event("w/v1", "E")
        wf.execute("c/v1", lambda: 3)

    key = runs.execute(register(before), "demo")
    runs.publish(key, "E")
    runs.execute_due(register(after))
    assert has(runs, fork(runs, key, "x/v1")) == "E"
    assert has(runs, fork(runs, key, "y/v1")) == "x E"
    assert has(runs, fork(runs, key, "a/v1")) == "x y"
    assert has(runs, fork(runs, key, "c/v1")) == "a b w x y E"


def test_a_run_that_is_tried_again_by_mended_code_is_forked_in_that_codes_order(
    runs: Runs,
) -> None:
    def broken(wf: Context) -> None:
        wf.execute("a/v1", lambda: 1)
        wf.execute("b/v1", lambda: 1 // 0)

    def mended(wf: Context) -> None:
        wf.execute("a/v1", lambda: 1)
        wf.execute("check/v1", lambda: 1)
        wf.execute("b/v1", lambda: 1)

    key = runs.execute(register(broken), "demo")
    told("runs", "retry", str(key), "--dsn", runs.dsn)
    runs.execute_due(register(mended))
    assert runs.status(key).status == "completed"
    assert has(runs, fork(runs, key, "check/v1")) == "a"
    assert has(runs, fork(runs, key, "b/v1")) == "a check"


@pytest.mark.parametrize("commit", ["attempt", "step"])
def test_what_two_attempts_have_made_stands_in_one_order(runs: Runs, commit: str) -> None:
    """The first one is undone, the second one loses its run, and the third one ends it."""
    attempts = iter(range(3))

    def unlucky(number: int) -> None:
        if number == 0:
            raise ValueError("the first attempt")
        if number == 1:
            runs.connection.execute(
                "UPDATE flows.runs SET claim = claim + 1, status = 'queued', worker_id = NULL"
            )

    def demo(wf: Context) -> None:
        wf.random_uint64("r1/v1")
        wf.execute("a/v1", lambda: 1)
        number = next(attempts)
        if number != 1:  # it would hold the run
            wf.tx.execute("SELECT 1")
        wf.execute("b/v1", lambda: unlucky(number))
        wf.random_uuidv7("r2/v1")
        wf.execute("c/v1", lambda: 3)

    registry = register(demo, commit=commit, run_retry=RunRetryPolicy(max_attempts=3))
    key = runs.execute(registry, "demo")
    assert runs.status(key).status == "completed"
    assert next(attempts, None) is None
    assert has(runs, fork(runs, key, "a/v1")) == "r1"
    assert has(runs, fork(runs, key, "b/v1")) == "a r1"
    assert has(runs, fork(runs, key, "c/v1")) == "a b r1 r2"
    page = shown(runs, key)
    assert keys_of(page, "steps") == ["a/v1", "b/v1", "c/v1"]
    made = sorted([*page["steps"], *page["random"]], key=lambda one: one["place"])
    assert [one["key"] for one in made] == ["r1/v1", "a/v1", "b/v1", "r2/v1", "c/v1"]


def test_rows_that_nobody_has_counted_are_forked_by_their_times(runs: Runs) -> None:
    registry = register(mixed)
    key = runs.begin("demo")
    runs.publish(key, "E1")
    runs.execute_due(registry)
    for table in ("steps", "waits", "random"):
        runs.connection.execute(f"UPDATE flows.{table} SET place = NULL, claim = 0".encode())
    runs.publish(key, "E2")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert keys_of(shown(runs, key), "steps") == ["a/v1", "b/v1", "c/v1"]
    assert has(runs, fork(runs, key, "c/v1")) == "a b r1 r2 w1 w2 E1 E2"
    assert "c" not in has(runs, fork(runs, key, "b/v1"))


def test_a_run_with_heavy_memos_goes_on_behind_them(runs: Runs) -> None:
    def heavy(wf: Context) -> None:
        wf.execute("a/v1", lambda: "x" * 100_000)
        wf.random_uint64("r/v1")
        wf.sleep("nap/v1", timedelta(microseconds=1))
        wf.wait_for_event("w/v1", "E")
        wf.execute("b/v1", lambda: 2)

    registry = register(heavy)
    key = runs.execute(registry, "demo")
    runs.publish(key, "E")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    assert has(runs, fork(runs, key, "b/v1")) == "a nap r w E"


def test_a_page_shows_what_happened_in_its_order_whatever_the_clocks_say(runs: Runs) -> None:
    def steps(wf: Context) -> None:
        wf.execute("a/v1", lambda: 1)
        wf.random_uint64("r/v1")
        wf.execute("b/v1", lambda: 2)

    key = runs.execute(register(steps), "demo")
    # As of a statement that was on its way for longer than others.
    [(later,)] = runs.rows("SELECT max(started_at) + interval '1 s' FROM flows.steps")
    runs.connection.execute(
        "UPDATE flows.steps SET started_at = %s WHERE step_key = 'a/v1'", (later,)
    )
    assert keys_of(shown(runs, key), "steps") == ["a/v1", "b/v1"]
    page = told("runs", "show", str(key), "--dsn", runs.dsn)
    assert page.index("a/v1") < page.index("r/v1") < page.index("b/v1")
