"""What a client of the reference writes works here unchanged, and it reads what it expects."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, DBConfig, Registry, RunRetryPolicy, exponential_backoff
from tests.reference import ReferenceClient
from tests.running import Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = timedelta(hours=1)
ONLY_NOTIFIED = {"poll_interval": HOUR, "max_poll_interval": HOUR}
A_MOMENT_S = 3.0


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("echo")
    def echo(wf: Context, given: Any) -> Any:
        return given

    @registry.workflow("waiter")
    def waiter(wf: Context, _: Any) -> Any:
        return wf.wait_for_event("number/v1", "Number")

    @registry.workflow("sleeper")
    def sleeper(wf: Context, _: Any) -> None:
        wf.sleep("nap/v1", HOUR)

    @registry.workflow("broken")
    def broken(wf: Context, _: Any) -> None:
        raise ValueError("no such film")

    again = RunRetryPolicy(max_attempts=2, backoff=exponential_backoff(HOUR, HOUR))

    @registry.workflow("stubborn", run_retry=again)
    def stubborn(wf: Context, _: Any) -> None:
        raise ValueError("not yet")

    return registry


@pytest.fixture
def reference(runs: Runs) -> Iterator[ReferenceClient]:
    with psycopg.connect(runs.dsn, autocommit=True) as connection:
        yield ReferenceClient(connection)


def test_a_run_begun_by_the_reference_is_executed_at_once(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    runs.start(registry, **ONLY_NOTIFIED)
    key = reference.begin("echo", '{"film": "a.mov", "frames": [1, 2.5, null]}')
    runs.wait_for(key, "completed", timeout_s=A_MOMENT_S)
    assert reference.output(key) == {"film": "a.mov", "frames": [1, 2.5, None]}


def test_its_notification_alone_wakes_an_idle_worker(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    runs.start(registry, **ONLY_NOTIFIED)
    first = reference.begin("echo", "1")
    runs.wait_for(first, "completed", timeout_s=A_MOMENT_S)
    # From here on the worker looks again in an hour.
    second = reference.begin("echo", "2", tells=False)
    reference.notify(str(second))
    runs.wait_for(second, "completed", timeout_s=A_MOMENT_S)


def test_an_event_of_the_reference_queues_the_run_that_waits_for_it(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    runs.start(registry, **ONLY_NOTIFIED)
    key = reference.begin("waiter", "null")
    runs.wait_for(key, "waiting_event", timeout_s=A_MOMENT_S)
    reference.publish(key, "Number", '{"n": 7}', tells=False)
    assert reference.status(key).status == "queued"
    reference.notify(str(key))
    runs.wait_for(key, "completed", timeout_s=A_MOMENT_S)
    assert reference.output(key) == {"n": 7}
    assert runs.rows("SELECT satisfied_at IS NOT NULL FROM flows.waits") == [(True,)]


def test_an_event_of_the_reference_replaces_the_one_before(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    key = reference.begin("waiter", "null")
    runs.publish(key, "Number", 1)
    reference.publish(key, "Number", "2")
    runs.execute_due(registry)
    assert reference.output(key) == 2


@pytest.mark.parametrize("name", ["echo", "waiter", "sleeper"])
def test_a_run_cancelled_by_the_reference_is_executed_no_more(
    runs: Runs, registry: Registry, reference: ReferenceClient, name: str
) -> None:
    key = reference.begin(name, "null")
    if name != "echo":
        runs.execute_due(registry)
    assert reference.cancel(key)
    assert not reference.cancel(key)
    runs.connection.execute("UPDATE flows.runs SET next_wake_at = now() - interval '1 s'")
    assert runs.execute_due(registry) == 0
    assert (runs.status(key).status, runs.status(key).error) == ("cancelled", "cancelled by user")


def test_a_schedule_of_the_reference_fires_here(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    runs.start(registry, **ONLY_NOTIFIED)
    reference.schedule("echo", "@every 1h0m0s", '"tick"')
    runs_of = "SELECT status FROM flows.runs WHERE workflow_name = 'echo'"
    wait_until(lambda: runs.rows(runs_of) == [("completed",)], what="fired", timeout_s=A_MOMENT_S)
    due = "SELECT enabled, next_run_at > now() + interval '50 min', last_run_at < now()"
    assert runs.rows(due + " FROM flows.schedules") == [(True, True, True)]
    # Replaced with its next time in the past; nobody tells but the notification.
    runs.connection.execute("UPDATE flows.schedules SET next_run_at = now() - interval '1 s'")
    reference.schedule("echo", "@every 1h0m0s", '"tock"', tells=False)
    reference.notify("schedule_refresh")
    wait_until(
        lambda: runs.rows(runs_of) == [("completed",)] * 2, what="again", timeout_s=A_MOMENT_S
    )
    outputs = runs.rows("SELECT output_json FROM flows.runs ORDER BY created_at")
    assert outputs == [("tick",), ("tock",)]


def test_the_reference_pauses_resumes_and_deletes_our_schedules(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    due = "UPDATE flows.schedules SET next_run_at = now() - interval '1 s'"
    fired = "SELECT count(*) FROM flows.runs"
    reference.schedule("echo", "0 3 * * 1-5", "1")
    assert reference.enable("echo", enabled=False)
    runs.connection.execute(due)
    runs.start(registry, **ONLY_NOTIFIED)
    # Had the paused one fired, it would have before this one.
    reference.schedule("waiter", "@every 1h0m0s", "null")
    wait_until(lambda: runs.rows(fired) == [(1,)], what="the other has", timeout_s=A_MOMENT_S)
    assert runs.rows("SELECT workflow_name FROM flows.runs") == [("waiter",)]
    assert reference.enable("echo", enabled=True)
    wait_until(lambda: runs.rows(fired) == [(2,)], what="it fires again", timeout_s=A_MOMENT_S)
    assert reference.delete("echo")
    assert not reference.delete("echo")


def test_the_reference_reads_each_state_as_its_own(
    runs: Runs, registry: Registry, reference: ReferenceClient
) -> None:
    keys = {name: reference.begin(name, "null") for name in ("echo", "waiter", "sleeper")}
    keys |= {name: reference.begin(name, "null") for name in ("broken", "stubborn")}
    queued = reference.status(keys["echo"])
    assert (queued.status, queued.error, queued.attempts, queued.next_wake_at) == (
        "queued",
        None,
        0,
        None,
    )
    runs.execute_due(registry)
    read = {name: reference.status(key) for name, key in keys.items()}
    assert {name: (each.status, each.attempts) for name, each in read.items()} == {
        "echo": ("completed", 0),
        "waiter": ("waiting_event", 0),
        "sleeper": ("sleeping", 0),
        "broken": ("failed", 1),
        "stubborn": ("sleeping", 1),
    }
    assert {name for name, each in read.items() if each.next_wake_at} == {"sleeper", "stubborn"}
    assert {name for name, each in read.items() if each.error} == {"broken", "stubborn"}
    assert "no such film" in str(read["broken"].error)
    assert all(each.updated_at >= each.created_at for each in read.values())
    # Nothing is JSON's null: SQL's would be none, which its decoder refuses.
    assert runs.rows("SELECT output_json::text FROM flows.runs WHERE status = 'completed'") == [
        ("null",)
    ]


def test_both_find_a_run_in_the_same_of_many_shards(dsn_of_four: Runs, registry: Registry) -> None:
    runs = dsn_of_four
    reference = ReferenceClient(runs.connection, shard_count=4)
    keys = [reference.begin("echo", str(number)) for number in range(80)]
    assert {key.workflow_name_shard for key in keys} == {f"echo_{k}" for k in range(4)}
    assert runs.execute_due(registry) == 80
    assert [reference.output(key) for key in keys] == list(range(80))


@pytest.fixture
def dsn_of_four(flows_dsn: str) -> Iterator[Runs]:
    """Runs with four shards a workflow."""
    runs = Runs(flows_dsn, DBConfig(shard_count=4))
    yield runs
    runs.close()
