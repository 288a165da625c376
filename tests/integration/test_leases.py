"""Leases: how long claims hold, who renews them, and what becomes of them when nobody does."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, DBConfig, LeaseLostError, Registry, leases
from flows.leases import LEASE, WorkerIdentity
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from flows import RunKey

CONFIG = DBConfig()
MS = timedelta(milliseconds=1)


@pytest.fixture
def identity() -> WorkerIdentity:
    return WorkerIdentity(uuid.uuid4(), uuid.uuid4(), ("demo",))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases be renewed and looked at many times a second."""
    monkeypatch.setattr(leases, "RENEW_INTERVAL", 20 * MS)


def claimed_by(runs: Runs, worker_id: uuid.UUID) -> RunKey:
    """Begin a run that a worker has claimed."""
    key = runs.begin("demo")
    runs.connection.execute(
        "UPDATE flows.runs SET status = 'running', claim = 1, worker_id = %s WHERE run_id = %s",
        (worker_id, key.run_id),
    )
    return key


def expires_in(runs: Runs, identity: WorkerIdentity) -> timedelta:
    [(left,)] = runs.rows(
        "SELECT lease_expires_at - now() FROM flows.workers WHERE worker_id = %s",
        identity.worker_id,
    )
    assert isinstance(left, timedelta)
    return left


def after(runs: Runs, duration: timedelta) -> datetime:
    """Return the database's time so much later."""
    [(instant,)] = runs.rows("SELECT now() + %s", duration)
    assert isinstance(instant, datetime)
    return instant


def test_a_lease_is_fifteen_seconds_and_is_renewed(runs: Runs, identity: WorkerIdentity) -> None:
    leases.register_worker(runs.connection, CONFIG, identity, lease=timedelta(seconds=1))
    assert expires_in(runs, identity) <= timedelta(seconds=1)
    assert leases.is_live(runs.connection, CONFIG, identity.worker_id)
    assert leases.renew_worker(runs.connection, CONFIG, identity.worker_id)
    assert timedelta(seconds=14) < expires_in(runs, identity) <= LEASE == timedelta(seconds=15)


def test_a_supervisor_renews_the_leases_of_its_own_workers(
    runs: Runs, identity: WorkerIdentity
) -> None:
    sibling, dead = (identity._replace(worker_id=uuid.uuid4()) for _ in range(2))
    stranger = WorkerIdentity(uuid.uuid4(), uuid.uuid4(), ("demo",))
    second = timedelta(seconds=1)
    for each in (identity, sibling, dead, stranger):
        leases.register_worker(runs.connection, CONFIG, each, lease=second)
    assert identity.supervisor_id is not None
    leases.renew_supervised(runs.connection, CONFIG, identity.supervisor_id, dead=[dead.worker_id])
    assert min(expires_in(runs, each) for each in (identity, sibling)) > second
    assert max(expires_in(runs, each) for each in (dead, stranger)) <= second


def test_a_worker_that_was_judged_dead_cannot_renew(runs: Runs, identity: WorkerIdentity) -> None:
    leases.register_worker(runs.connection, CONFIG, identity)
    leases.release_worker(runs.connection, CONFIG, identity.worker_id)
    assert not leases.renew_worker(runs.connection, CONFIG, identity.worker_id)
    assert not leases.is_live(runs.connection, CONFIG, identity.worker_id)
    assert not leases.is_live(runs.connection, CONFIG, uuid.uuid4())


def test_released_runs_are_queued_and_announced_and_not_counted(
    runs: Runs, identity: WorkerIdentity
) -> None:
    leases.register_worker(runs.connection, CONFIG, identity)
    key = claimed_by(runs, identity.worker_id)
    other = claimed_by(runs, uuid.uuid4())
    runs.connection.execute("LISTEN flows_run_wakeup")
    assert leases.release_worker(runs.connection, CONFIG, identity.worker_id) == 1
    assert (runs.status(key).status, runs.status(key).attempts) == ("queued", 0)
    assert runs.status(other).status == "running"
    [told] = runs.connection.notifies(timeout=DEADLINE_S, stop_after=1)
    assert told.payload == "demo_0"


@pytest.mark.parametrize(("later", "released"), [(LEASE + 500 * MS, 1), (LEASE - 500 * MS, 0)])
def test_runs_are_rescued_once_the_lease_is_over_and_not_before(
    runs: Runs, identity: WorkerIdentity, later: timedelta, released: int
) -> None:
    leases.register_worker(runs.connection, CONFIG, identity)
    key = claimed_by(runs, identity.worker_id)
    assert leases.rescue_expired(runs.connection, CONFIG, now=after(runs, later)) == released
    assert runs.status(key).status == ("queued" if released else "running")


def test_runs_of_a_worker_that_nobody_knows_are_rescued(runs: Runs) -> None:
    key = claimed_by(runs, uuid.uuid4())
    assert leases.rescue_expired(runs.connection, CONFIG) == 1
    assert runs.status(key).status == "queued"


def test_a_run_whose_transaction_is_open_keeps_its_worker(
    runs: Runs, identity: WorkerIdentity
) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("held")
    def hold(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        gate.pass_through()

    key = runs.begin(hold)
    running = runs.start(registry)
    gate.wait_for_arrival()
    worker_id = running.worker.worker_id
    assert leases.release_worker(runs.connection, CONFIG, worker_id) == 0
    assert runs.status(key).status == "running"
    gate.open()
    runs.wait_for(key, "completed")


def test_a_lone_worker_renews_its_own_lease(runs: Runs, often: None) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf: None)
    running = runs.start(registry)
    runs.connection.execute("UPDATE flows.workers SET lease_expires_at = now() + interval '5 s'")
    identity = WorkerIdentity(running.worker.worker_id, None, ())
    wait_until(
        lambda: expires_in(runs, identity) > timedelta(seconds=10), what="the lease is renewed"
    )


def test_a_lone_worker_that_lost_its_lease_registers_anew_and_goes_on(
    runs: Runs, often: None
) -> None:
    gate, registry = Gate(), Registry()
    claims: list[Any] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        claims.append(wf.run_key)
        if len(claims) == 1:
            gate.pass_through()
        return len(claims)

    key = runs.begin(demo)
    running = runs.start(registry)
    gate.wait_for_arrival()
    lost = running.worker.worker_id
    leases.release_worker(runs.connection, CONFIG, lost)
    wait_until(lambda: running.worker.worker_id != lost, what="it has another id")
    gate.open()
    runs.wait_for(key, "completed")
    # The attempt of the lost claim has changed nothing; the next one counts.
    assert runs.output(key) == 2
    assert runs.rows("SELECT claim, attempts FROM flows.runs") == [(2, 0)]
    live = runs.rows("SELECT worker_id FROM flows.workers WHERE stopped_at IS NULL")
    assert live == [(running.worker.worker_id,)]


def test_nothing_is_claimed_under_an_id_that_is_not_registered(
    runs: Runs, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, registry = Gate(), Registry()
    executed: list[Any] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        executed.append(wf.run_key)
        gate.pass_through()

    running = runs.start(registry)
    lost, refused = running.worker.worker_id, threading.Event()
    register = leases.register_worker

    def refuse_the_keeper(*arguments: Any) -> None:
        if threading.current_thread().name == "flows-lease-keeper":
            refused.set()
            raise psycopg.OperationalError("the connection is cut")
        register(*arguments)

    monkeypatch.setattr(leases, "register_worker", refuse_the_keeper)
    leases.release_worker(runs.connection, CONFIG, lost)
    assert refused.wait(DEADLINE_S)
    key = runs.begin(demo)
    gate.wait_for_arrival()
    # As any other host does, whose workers would take the run again.
    assert leases.rescue_expired(runs.connection, CONFIG) == 0
    gate.open()
    runs.wait_for(key, "completed")
    assert executed == [key]
    assert runs.rows("SELECT claim FROM flows.runs") == [(1,)]


def test_process_one_claims_nothing_under_an_id_that_is_not_registered(
    runs: Runs, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, refused = Registry(), threading.Event()
    register = leases.register_worker

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        return leases.rescue_expired(runs.connection, CONFIG)

    def refuse_the_keeper(*arguments: Any) -> None:
        if threading.current_thread().name == "flows-lease-keeper":
            refused.set()
            raise psycopg.OperationalError("the connection is cut")
        register(*arguments)

    worker = runs.worker(registry)
    assert not worker.process_one()
    monkeypatch.setattr(leases, "register_worker", refuse_the_keeper)
    leases.release_worker(runs.connection, CONFIG, worker.worker_id)
    assert refused.wait(DEADLINE_S)
    key = runs.begin(demo)
    assert worker.process_one()
    assert runs.output(key) == 0


def test_a_worker_that_cannot_register_anew_tries_with_the_same_id(
    runs: Runs, often: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf: None)
    running = runs.start(registry)
    register, refused = leases.register_worker, threading.Event()

    def refuse_once(*arguments: Any) -> None:
        if not refused.is_set():
            refused.set()
            raise psycopg.OperationalError("the connection is cut")
        register(*arguments)

    monkeypatch.setattr(leases, "register_worker", refuse_once)
    leases.release_worker(runs.connection, CONFIG, running.worker.worker_id)
    assert refused.wait(DEADLINE_S)
    wait_until(
        lambda: leases.is_live(runs.connection, CONFIG, running.worker.worker_id),
        what="it is registered",
    )
    assert caplog.text.count("lease lost") == 1


def test_a_lone_worker_rescues_the_runs_of_lost_ones(
    runs: Runs, identity: WorkerIdentity, often: None
) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf, inp: "rescued")
    leases.register_worker(runs.connection, CONFIG, identity, lease=-LEASE)
    key = claimed_by(runs, identity.worker_id)
    hour = timedelta(hours=1)
    runs.start(registry, poll_interval=hour, max_poll_interval=hour)
    runs.wait_for(key, "completed")


def test_a_supervised_worker_that_lost_its_lease_ends(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_INTERVAL", timedelta())
    gate, registry = Gate(), Registry()
    registry.workflow("demo")(lambda wf: gate.pass_through())
    first = runs.begin("demo")
    running = runs.start(registry, supervisor_id=uuid.uuid4())
    # Its only executor is busy: it cannot be between a look at its lease and a claim.
    gate.wait_for_arrival()
    worker_id = running.worker.worker_id
    leases.release_worker(runs.connection, CONFIG, worker_id)
    second = runs.begin("demo")
    gate.open()
    failure = running.wait_for_failure()
    assert isinstance(failure, LeaseLostError)
    assert str(worker_id) in str(failure)
    assert [runs.status(key).status for key in (first, second)] == ["queued", "queued"]
