"""Durable sleeps: how long they last, by whose clock, and what wakes them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

HOUR = timedelta(hours=1)
MS = timedelta(milliseconds=1)


def sleeper(*sleeps: tuple[str, timedelta]) -> tuple[Registry, Any, list[str]]:
    """Return a registry of one workflow that sleeps, its handle, and what it has slept."""
    registry = Registry()
    slept: list[str] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        slept.clear()
        for key, duration in sleeps:
            wf.sleep(key, duration)
            slept.append(key)

    return registry, demo, slept


def let_pass(runs: Runs, duration: timedelta) -> None:
    """Move what the database has stored into the past, as if the time had passed."""
    for table, column in (("runs", "next_wake_at"), ("waits", "wake_at")):
        # Of instants without a zone, because Citus takes no other arithmetic in an UPDATE.
        moved = f"({column} AT TIME ZONE 'UTC' - %s) AT TIME ZONE 'UTC'"
        runs.connection.execute(
            f"UPDATE flows.{table} SET {column} = {moved}".encode(), (duration,)
        )


def test_a_sleep_yields_and_returns_once_its_time_has_passed(runs: Runs) -> None:
    registry, demo, slept = sleeper(("cooldown/v1", HOUR))
    key = runs.execute(registry, demo)
    assert slept == []
    let_pass(runs, HOUR - timedelta(minutes=1))
    assert runs.execute_due(registry) == 0
    let_pass(runs, timedelta(minutes=1))
    assert runs.execute_due(registry) == 1
    assert slept == ["cooldown/v1"]
    assert runs.status(key).status == "completed"


def test_a_sleep_is_recorded_with_its_end_by_the_clock_of_the_database(runs: Runs) -> None:
    registry, demo, _ = sleeper(("cooldown/v1", HOUR))
    key = runs.execute(registry, demo)
    [(kind, lasts, satisfied, wake_at)] = runs.rows(
        "SELECT wait_type, wake_at - updated_at, satisfied_at, wake_at FROM flows.waits"
    )
    assert (kind, satisfied) == ("sleep", None)
    assert abs(lasts - HOUR) < timedelta(seconds=1)
    assert runs.status(key).next_wake_at == wake_at


def test_a_sleep_that_is_over_is_not_slept_again(runs: Runs) -> None:
    registry, demo, slept = sleeper(("a", HOUR), ("b", 2 * HOUR))
    key = runs.execute(registry, demo)
    let_pass(runs, HOUR)
    runs.execute_due(registry)
    assert slept == ["a"]
    assert runs.status(key).status == "sleeping"
    let_pass(runs, 2 * HOUR)
    runs.execute_due(registry)
    assert slept == ["a", "b"]
    satisfied = "SELECT wait_key, satisfied_at IS NOT NULL FROM flows.waits ORDER BY wait_key"
    assert runs.rows(satisfied) == [("a", True), ("b", True)]


@pytest.mark.parametrize("duration", [timedelta(), -HOUR, timedelta.min])
def test_a_sleep_of_nothing_returns_at_once(runs: Runs, duration: timedelta) -> None:
    registry, demo, slept = sleeper(("cooldown/v1", duration))
    key = runs.begin(demo)
    assert runs.execute_due(registry) == 1
    assert slept == ["cooldown/v1"]
    assert runs.status(key).status == "completed"


def test_a_run_interrupted_in_its_sleep_sleeps_on(runs: Runs) -> None:
    registry, demo, slept = sleeper(("cooldown/v1", HOUR))
    key = runs.execute(registry, demo)
    # As if the run had been queued for another reason: the sleep itself is not over.
    runs.connection.execute("UPDATE flows.runs SET status = 'queued', next_wake_at = NULL")
    assert runs.execute_due(registry) == 1
    assert slept == []
    status = runs.status(key)
    assert status.status == "sleeping"
    [(began, wakes)] = runs.rows(
        "SELECT waits.created_at, runs.next_wake_at FROM flows.waits"
        " JOIN flows.runs USING (workflow_name_shard, run_id)"
    )
    assert abs(wakes - began - HOUR) < timedelta(milliseconds=200)


@pytest.mark.parametrize(
    "before",
    [
        lambda wf: None,
        lambda wf: wf.execute("step/v1", lambda: 1),
        lambda wf: wf.tx.execute("SELECT 1"),
    ],
    ids=["alone", "after a step", "in a transaction"],
)
def test_a_sleep_ends_within_100_ms_of_its_time_however_rarely_the_worker_polls(
    runs: Runs, before: Callable[[Context], Any]
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        before(wf)
        wf.sleep("cooldown/v1", 300 * MS)

    runs.start(registry, poll_interval=30_000 * MS, max_poll_interval=30_000 * MS)
    key = runs.begin(demo)
    runs.wait_for(key, "completed")
    [(late,)] = runs.rows(
        "SELECT runs.finished_at - waits.wake_at FROM flows.runs"
        " JOIN flows.waits USING (workflow_name_shard, run_id)"
    )
    assert timedelta() <= late < 100 * MS


def test_a_sleeper_of_another_worker_is_woken_in_time_too(runs: Runs) -> None:
    registry, demo, _ = sleeper(("cooldown/v1", 300 * MS))
    runs.start(registry, poll_interval=30_000 * MS, max_poll_interval=30_000 * MS)
    other = Registry()
    other.workflow("demo")(demo.function)
    with runs.connection.transaction():
        # The worker that runs cannot see the run before the other one has it.
        key = runs.begin(demo)
        runs.connection.execute("UPDATE flows.runs SET status = 'waiting_event'")
    runs.connection.execute("UPDATE flows.runs SET status = 'queued'")
    runs.execute_due(other)
    wait_until(lambda: runs.status(key).status == "completed", what="the sleeper is done")
    [(late,)] = runs.rows(
        "SELECT runs.finished_at - waits.wake_at FROM flows.runs"
        " JOIN flows.waits USING (workflow_name_shard, run_id)"
    )
    assert timedelta() <= late < 100 * MS


def test_sleepers_end_in_the_order_of_their_times(runs: Runs) -> None:
    registry, woken = Registry(), []

    @registry.workflow("demo", concurrency=3)
    def demo(wf: Context, ms: int) -> None:
        wf.sleep("cooldown/v1", ms * MS)
        woken.append(ms)

    runs.start(registry, poll_interval=30_000 * MS, max_poll_interval=30_000 * MS)
    keys = runs.client.begin_many_tx(runs.connection, demo, [300, 100, 200])
    for key in keys:
        runs.wait_for(key, "completed")
    assert woken == [100, 200, 300]
