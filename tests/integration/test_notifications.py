"""Notifications: they wake whom they concern at once, and may be lost, forged or switched off."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import dropwhile, pairwise
from typing import Any, NamedTuple

import pytest

from flows import Client, Context, Registry, RunRetryPolicy
from flows.claims import Claimed, claim_runs
from flows.clock import monotonic
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_until

CHANNEL = "flows_run_wakeup"
MS = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)
SOME_ID = "0198c0de-7a11-4f00-8000-00000000abcd"
RARELY = {"poll_interval": HOUR, "max_poll_interval": HOUR}


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("echo")
    def echo(wf: Context, value: Any) -> Any:
        return value

    @registry.workflow("waiter")
    def waiter(wf: Context) -> Any:
        return wf.wait_for_event("number/v1", "Number")

    return registry


class Claim(NamedTuple):
    """When a dispatcher claimed, and how many runs it was given."""

    at_s: float
    runs: int


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """The claims of dispatchers, as they come."""
    made: list[Claim] = []

    def recording(*args: Any, **how: Any) -> Claimed:
        began_s = monotonic()
        claimed = claim_runs(*args, **how)
        made.append(Claim(began_s, len(claimed.runs)))
        return claimed

    monkeypatch.setattr("flows.dispatcher.claim_runs", recording)
    return made


def test_a_run_is_executed_at_once_however_rarely_the_worker_polls(
    runs: Runs, registry: Registry
) -> None:
    runs.start(registry, **RARELY)
    for value in range(3):
        runs.wait_for(runs.begin("echo", value), "completed")


def test_a_run_begun_before_the_worker_is_found_at_its_start(
    runs: Runs, registry: Registry
) -> None:
    client = Client(disable_notify=True)
    key = client.begin_tx(runs.connection, "echo", 1)
    runs.start(registry, **RARELY)
    runs.wait_for(key, "completed")


def test_one_notification_reaches_every_worker_it_concerns(runs: Runs) -> None:
    gate = Gate()

    def held() -> Registry:
        registry = Registry()

        @registry.workflow("held")
        def hold(wf: Context) -> None:
            gate.pass_through()

        return registry

    for _ in range(2):
        runs.start(held(), **RARELY)
    # One transaction, so one notification; one executor a worker, so each takes one.
    keys = runs.client.begin_many_tx(runs.connection, "held", [None, None])
    for _ in range(2):
        gate.wait_for_arrival()
    gate.open()
    for key in keys:
        runs.wait_for(key, "completed")


def test_client_and_worker_may_use_another_channel(runs: Runs, registry: Registry) -> None:
    runs.start(registry, notify_channel="Elsewhere", **RARELY)
    client = Client(notify_channel="Elsewhere")
    key = client.begin_tx(runs.connection, "waiter")
    runs.wait_for(key, "waiting_event")
    client.publish_event_tx(runs.connection, key, "Number", 3)
    runs.wait_for(key, "completed")


def test_with_notifications_off_a_worker_polls_at_its_first_interval(
    runs: Runs, registry: Registry
) -> None:
    runs.start(registry, disable_notify=True, poll_interval=20 * MS, max_poll_interval=HOUR)
    key = runs.begin("echo", 1)
    runs.wait_for(key, "completed")


def test_with_notifications_off_a_worker_tells_nobody(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo", run_retry=RunRetryPolicy(2))
    def demo(wf: Context) -> None:
        wf.sleep("cooldown/v1", MS)
        raise ValueError("no")

    runs.connection.execute(f"LISTEN {CHANNEL}")
    client = Client(disable_notify=True)
    runs.start(registry, disable_notify=True, poll_interval=20 * MS)
    key = client.begin_tx(runs.connection, demo)
    runs.wait_for(key, "failed")
    assert list(runs.connection.notifies(timeout=0)) == []


def test_a_worker_tells_the_others_of_runs_that_become_due(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo", run_retry=RunRetryPolicy(2))
    def demo(wf: Context) -> None:
        raise ValueError("no")

    runs.begin(demo)
    runs.connection.execute(f"LISTEN {CHANNEL}")
    with runs.worker(registry) as worker:
        worker.process_one()
    [told] = runs.connection.notifies(timeout=DEADLINE_S, stop_after=1)
    assert told.payload == "demo_0"


@pytest.mark.parametrize(
    "payload",
    [
        "",
        ":",
        "echo",
        "echo_0:",
        "echo_0:17",
        "echo_0:" + "1_" * 16,
        "echo_0:" + "\u0661" * 32,
        "echo_0:1-2345678123456781234567812345678",
        "echo_0:{" + SOME_ID + "}",
        "echo_0:" + "x" * 7000,
        "echo_1:" + SOME_ID,
        "echo_0:" + SOME_ID,
        "other_0",
        "schedule_refresh",
        "'; DROP SCHEMA flows CASCADE; --",
        "echo_0\n",
        "%s %(shard)s",
    ],
)
def test_whatever_is_sent_on_the_channel_does_no_harm(
    runs: Runs, registry: Registry, payload: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    running = runs.start(registry, **RARELY)
    for value in range(2):
        runs.connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
        runs.wait_for(runs.begin("echo", value), "completed")
    running.stop()
    assert caplog.messages == []


def test_a_flood_of_notifications_costs_no_claim_each(
    runs: Runs, registry: Registry, claims: list[Claim]
) -> None:
    runs.start(registry, **RARELY)
    before = len(claims)
    with runs.connection.transaction():
        for number in range(2000):
            runs.connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"other_{number}"))
        key = runs.begin("echo", 1)
    runs.wait_for(key, "completed")
    assert len(claims) - before < 10


def waits_between(claims: list[Claim]) -> list[float]:
    return [later.at_s - earlier.at_s for earlier, later in pairwise(claims)]


def after_success(claims: list[Claim]) -> list[Claim]:
    """Return the first claim that was given a run, and those after it."""
    return list(dropwhile(lambda claim: not claim.runs, claims))


def test_idle_polls_come_ever_more_rarely_up_to_a_bound(
    runs: Runs, registry: Registry, claims: list[Claim]
) -> None:
    only = registry.only(["echo"])
    runs.start(only, poll_interval=20 * MS, max_poll_interval=80 * MS)
    wait_until(lambda: len(claims) >= 7, what="it polls")
    waits = waits_between(claims[:7])
    for wait, expected in zip(waits, [0.02, 0.04, 0.08, 0.08, 0.08, 0.08], strict=True):
        assert wait >= expected
    # Without the bound they would take 1.26 s.
    assert sum(waits) < 1.0
    # What is found makes it look often again.
    runs.begin("echo", 1)
    wait_until(lambda: len(after_success(claims)) >= 4, what="it polls again")
    assert min(waits_between(after_success(claims))[1:]) < 0.08


def test_with_notifications_off_polls_come_at_a_fixed_interval(
    runs: Runs, registry: Registry, claims: list[Claim]
) -> None:
    only = registry.only(["echo"])
    runs.start(only, poll_interval=20 * MS, max_poll_interval=HOUR, disable_notify=True)
    wait_until(lambda: len(claims) >= 9, what="it polls")
    waits = waits_between(claims[:9])
    assert min(waits) >= 0.02
    # Doubled each time they would take 5.1 s.
    assert sum(waits) < 2.0
