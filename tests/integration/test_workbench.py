"""The workbench: runs are executed when the test says so, and time passes when it says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from flows import (
    ConfigError,
    Context,
    DBConfig,
    Registry,
    RetryPolicy,
    RunRetryPolicy,
    SchemaError,
    every,
    exponential_backoff,
    migrate,
    parse_cron,
)
from flows.testing import StepMemo, Workbench

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)

registry = Registry()


@registry.workflow("double")
def double(wf: Context, number: int) -> int:
    return wf.execute("double/v1", lambda given: 2 * int(given), number)


@registry.workflow("patient")
def patient(wf: Context) -> str:
    wf.sleep("days/v1", 3 * DAY)
    wf.sleep("hour/v1", HOUR)
    return "awake"


@registry.workflow("waiting")
def waiting(wf: Context) -> str:
    return wf.wait_for_event("answer/v1", "Answer", str)


@registry.workflow("endless")
def endless(wf: Context) -> None:
    wf.client.begin_tx(wf.tx, "endless")


@registry.workflow("stubborn", run_retry=RunRetryPolicy(3, exponential_backoff(HOUR, DAY)))
def stubborn(wf: Context) -> int:
    if wf.attempt < 3:
        raise ValueError("not yet")
    return wf.attempt


@pytest.fixture
def bench(flows_dsn: str) -> Iterator[Workbench]:
    with Workbench(flows_dsn, registry) as bench:
        yield bench


def status(bench: Workbench, key: Any) -> str:
    return bench.client.status(key).status


def test_what_is_due_is_executed_when_the_test_says_so(bench: Workbench) -> None:
    keys = [bench.client.begin(double, number) for number in range(3)]
    assert [status(bench, key) for key in keys] == ["queued"] * 3
    assert bench.drain() == 3
    assert [bench.client.output(key, int) for key in keys] == [0, 2, 4]
    assert bench.drain() == 0


def test_a_published_event_makes_its_run_due(bench: Workbench) -> None:
    key = bench.client.begin(waiting)
    assert bench.drain() == 1
    assert bench.drain() == 0
    bench.client.publish_event(key, "Answer", "yes")
    assert bench.drain() == 1
    assert bench.client.output(key, str) == "yes"


def test_runs_without_end_do_not_hang_a_test(bench: Workbench) -> None:
    bench.client.begin(endless)
    with pytest.raises(AssertionError, match="still due after 5 attempts"):
        bench.drain(limit=5)
    assert len([state for state, *_ in outputs(bench) if state == "completed"]) == 6


def test_as_many_attempts_as_the_limit_are_no_fault(bench: Workbench) -> None:
    bench.client.begin_many(double, range(5))
    assert bench.drain(limit=5) == 5


def test_a_sleep_is_over_when_its_time_has_passed(bench: Workbench) -> None:
    key = bench.client.begin(patient)
    assert bench.drain() == 1
    bench.advance(3 * DAY - MINUTE)
    assert bench.drain() == 0
    bench.advance(MINUTE)
    # The next sleep begins where this one has ended.
    assert bench.drain() == 1
    bench.advance(HOUR - MINUTE)
    assert bench.drain() == 0
    bench.advance(MINUTE)
    assert bench.drain() == 1
    assert bench.client.output(key, str) == "awake"


def test_a_delayed_run_starts_when_its_time_has_come(bench: Workbench) -> None:
    key = bench.client.begin(double, 4, delay=DAY)
    bench.advance(DAY - MINUTE)
    assert bench.drain() == 0
    bench.advance(MINUTE)
    assert bench.drain() == 1
    assert bench.client.output(key, int) == 8


def test_a_failed_run_is_tried_again_when_its_time_has_come(bench: Workbench) -> None:
    key = bench.client.begin(stubborn)
    assert bench.drain() == 1
    bench.advance(HOUR)
    assert bench.drain() == 1
    bench.advance(HOUR)
    assert bench.drain() == 0
    bench.advance(HOUR)
    assert bench.drain() == 1
    assert bench.client.output(key, int) == 3


def test_a_run_fails_when_its_deadline_has_passed(bench: Workbench) -> None:
    key = bench.client.begin(waiting, deadline=DAY)
    bench.drain()
    bench.advance(DAY - MINUTE)
    bench.drain()
    assert status(bench, key) == "waiting_event"
    bench.advance(MINUTE)
    bench.drain()
    assert status(bench, key) == "failed"
    assert "RunTimeoutError" in str(bench.client.status(key).error)


def test_a_day_later_a_run_was_begun_a_day_ago(bench: Workbench) -> None:
    key = bench.client.begin(double, 1)
    bench.drain()
    before = bench.client.status(key)
    bench.advance(DAY)
    after = bench.client.status(key)
    assert before.created_at - after.created_at == DAY
    assert before.updated_at - after.updated_at == DAY


def test_time_does_not_go_backward(bench: Workbench) -> None:
    with pytest.raises(ConfigError, match="goes forward only, not by -1 day"):
        bench.advance(-DAY)


def outputs(bench: Workbench) -> list[Any]:
    query = "SELECT status, output_json, created_at <= statement_timestamp() FROM flows.runs"
    with bench.client.transaction() as tx:
        return tx.execute(query).fetchall()


@pytest.mark.parametrize("schedule", [every(DAY), parse_cron("30 2 * * *", "Europe/Berlin")])
def test_a_schedule_begins_a_run_each_time_it_is_due(bench: Workbench, schedule: Any) -> None:
    with bench.client.transaction() as tx:
        bench.client.schedule_tx(tx, double, 3, "daily", schedule)
    assert bench.drain() == 0
    for days in range(1, 4):
        bench.advance(DAY)
        assert bench.drain() == 1
        assert outputs(bench) == [("completed", 6, True)] * days


def test_ticks_that_were_missed_are_caught_up_with(bench: Workbench) -> None:
    with bench.client.transaction() as tx:
        bench.client.schedule_tx(tx, double, 3, "latest", every(DAY))
        bench.client.schedule_tx(tx, double, 4, "all", every(DAY), catch_up="all")
    bench.advance(3 * DAY + MINUTE)
    assert bench.drain() == 4
    assert sorted(outputs(bench)) == [("completed", 6, True), *[("completed", 8, True)] * 3]


def test_a_run_that_a_schedule_puts_off_starts_later(bench: Workbench) -> None:
    with bench.client.transaction() as tx:
        bench.client.schedule_tx(tx, double, 3, "daily", every(DAY), jitter=12 * HOUR)
    bench.advance(DAY)
    assert bench.drain() == 0
    assert outputs(bench) == [("sleeping", None, True)]
    bench.advance(12 * HOUR)
    assert bench.drain() == 1


@contextmanager
def bench_of(dsn: str, name: str, function: Any, **options: Any) -> Iterator[Workbench]:
    """A workbench of a workflow with a run, executed."""
    mine = Registry()
    workflow = mine.workflow(name, **options)(function)
    with Workbench(dsn, mine) as bench:
        bench.client.begin(workflow)
        bench.drain()
        yield bench


def only_run(bench: Workbench) -> str:
    with bench.client.transaction() as tx:
        rows = tx.execute("SELECT workflow_name_shard || ':' || run_id FROM flows.runs").fetchall()
    ((key,),) = rows
    return str(key)


def test_tries_of_a_step_follow_at_once_and_are_counted(flows_dsn: str) -> None:
    def fail() -> None:
        raise ValueError("never")

    def workflow(wf: Context) -> None:
        wf.execute("first/v1", lambda: 1)
        backoff = exponential_backoff(DAY, DAY)
        wf.execute("fails/v1", fail, retry=RetryPolicy(max_retries=3, backoff=backoff))

    with bench_of(flows_dsn, "retrying", workflow) as bench:
        key = only_run(bench)
        assert bench.calls(key, "fails/v1") == 4
        first, fails = bench.steps(key)
        assert first == StepMemo("first/v1", "completed", 1, 1, None)
        assert fails[:4] == ("fails/v1", "failed", 4, None)
        with pytest.raises(AssertionError, match=r"'fails/v1' has failed: ValueError: never"):
            bench.assert_step(key, "fails/v1")


class Meter:
    """Steps of every kind, each of which annotates that it returns a tuple or itself."""

    def method(self, given: int) -> tuple[int, int]:
        return (given, 0)

    def __call__(self, given: int) -> tuple[int, int]:
        return (given, 1)


def add(first: int, second: int) -> tuple[int, int]:
    return (first, second)


def test_steps_of_every_kind_are_what_they_are_without_a_workbench(flows_dsn: str) -> None:
    def workflow(wf: Context) -> str:
        meter = Meter()
        got = (
            wf.execute("method/v1", meter.method, 1),
            wf.execute("object/v1", meter, 2),
            wf.execute("partial/v1", partial(add, 3), 4),
            wf.execute("class/v1", int, "5"),
            wf.execute("lambda/v1", lambda: (6, 7)),
            # The same call once more is the same step.
            wf.execute("partial/v1", partial(add, 3), 4),
        )
        return repr(got)

    with bench_of(flows_dsn, "kinds", workflow) as bench:
        key = only_run(bench)
        output = bench.client.output(key, str)
        assert output == "((1, 0), (2, 1), (3, 4), 5, [6, 7], (3, 4))"
        assert bench.calls(key, "partial/v1") == 1


def test_what_an_assertion_expects_is_compared_as_it_is_stored(bench: Workbench) -> None:
    key = bench.client.begin(double, 21)
    with pytest.raises(AssertionError, match=r"'double/v1' has no memo; these have: \[\]"):
        bench.assert_step(key, "double/v1")
    bench.drain()
    bench.assert_step(key, "double/v1", output=42, calls=1)
    bench.assert_step(str(key), "double/v1")
    with pytest.raises(AssertionError, match="has returned 42, not 43"):
        bench.assert_step(key, "double/v1", output=43)
    with pytest.raises(AssertionError, match="was called 1 times, not 2"):
        bench.assert_step(key, "double/v1", calls=2)


def test_another_schema_and_many_shards_are_served(flows_dsn: str) -> None:
    config = DBConfig(schema="elsewhere", shard_count=4)
    with pytest.raises(SchemaError):
        Workbench(flows_dsn, registry, db_config=config)
    with psycopg.connect(flows_dsn) as connection:
        migrate(connection, config)
    with Workbench(flows_dsn, registry, db_config=config) as bench:
        keys = bench.client.begin_many(patient, [None] * 12)
        assert bench.drain() == 12
        bench.advance(3 * DAY)
        assert bench.drain() == 12
        assert {status(bench, key) for key in keys} == {"sleeping"}
