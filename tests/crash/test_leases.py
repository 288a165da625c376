"""Leases: who is judged dead, when, and by whom."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import flows.lease_keeper
from flows import Context, DBConfig, LeaseLostError, Registry, RunKey, leases
from flows.claims import claim_runs
from flows.clock import monotonic
from flows.config import DEFAULT_NOTIFY_CHANNEL
from flows.database import connect
from tests.crash.holds import Hold
from tests.running import Gate
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from tests.running import Runs

CONFIG = DBConfig()


def register(runs: Runs, *, expired: bool = False) -> uuid.UUID:
    """Register a worker that is nobody's process."""
    worker_id = uuid.uuid4()
    identity = leases.WorkerIdentity(worker_id, None, ("other",))
    lease = timedelta(seconds=-1) if expired else leases.LEASE
    leases.register_worker(runs.connection, CONFIG, identity, lease)
    return worker_id


def claim(runs: Runs, worker_id: uuid.UUID) -> RunKey:
    """Begin a run of a workflow that no process runs, and have it claimed."""
    key = runs.begin("other")
    with connect(runs.dsn) as connection:
        claimed = claim_runs(connection, "flows", [key.workflow_name_shard], 1, worker_id)
        assert [run.run_id for run in claimed.runs] == [str(key.run_id)]
    return key


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_INTERVAL", timedelta(milliseconds=5))


def test_runs_of_a_worker_whose_lease_ran_out_are_released_and_announced(runs: Runs) -> None:
    live, dead = register(runs), register(runs, expired=True)
    kept, released = claim(runs, live), claim(runs, dead)
    with psycopg.connect(runs.dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {DEFAULT_NOTIFY_CHANNEL}".encode())
        assert leases.rescue_expired(runs.connection, CONFIG) == 1
        (heard,) = listener.notifies(timeout=DEADLINE_S, stop_after=1)
    assert heard.payload == released.workflow_name_shard
    assert runs.status(kept).status == "running"
    status = runs.status(released)
    assert (status.status, status.attempts) == ("queued", 0)
    assert leases.rescue_expired(runs.connection, CONFIG) == 0


def test_the_last_moment_of_a_lease_counts_as_live(runs: Runs) -> None:
    worker_id = register(runs)
    key = claim(runs, worker_id)
    ((end,),) = runs.rows("SELECT lease_expires_at FROM flows.workers")
    assert leases.rescue_expired(runs.connection, CONFIG, now=end) == 0
    assert runs.status(key).status == "running"
    later = end + timedelta(microseconds=1)
    assert leases.rescue_expired(runs.connection, CONFIG, now=later) == 1
    assert runs.status(key).status == "queued"


def test_a_worker_that_is_renewing_its_lease_is_not_judged(runs: Runs) -> None:
    worker_id = register(runs, expired=True)
    key = claim(runs, worker_id)
    with psycopg.connect(runs.dsn) as renewing:
        assert leases.renew_worker(renewing, CONFIG, worker_id)
        assert leases.rescue_expired(runs.connection, CONFIG) == 0
    assert leases.is_live(runs.connection, CONFIG, worker_id)
    assert leases.rescue_expired(runs.connection, CONFIG) == 0
    assert runs.status(key).status == "running"


def test_a_worker_that_was_judged_dead_cannot_renew(runs: Runs) -> None:
    worker_id = register(runs, expired=True)
    leases.rescue_expired(runs.connection, CONFIG)
    assert not leases.renew_worker(runs.connection, CONFIG, worker_id)
    assert not leases.is_live(runs.connection, CONFIG, worker_id)


def test_a_dead_workers_claim_that_was_committed_late_is_released_too(runs: Runs) -> None:
    worker_id = register(runs)
    assert leases.release_worker(runs.connection, CONFIG, worker_id) == 0
    late, unregistered = claim(runs, worker_id), claim(runs, uuid.uuid4())
    assert leases.rescue_expired(runs.connection, CONFIG) == 2
    assert [runs.status(key).status for key in (late, unregistered)] == ["queued", "queued"]


def idle() -> Registry:
    registry = Registry()

    @registry.workflow("idle")
    def nothing(wf: Context) -> None:
        pass

    return registry


@pytest.mark.usefixtures("renewed_often")
def test_a_worker_rescues_runs_of_workflows_that_are_not_its_own(runs: Runs) -> None:
    key = claim(runs, register(runs, expired=True))
    runs.start(idle())
    runs.wait_for(key, "queued")


@pytest.mark.usefixtures("renewed_often")
def test_after_a_reconnect_nobody_is_judged_until_a_lease_period_has_passed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = runs.start(idle()).worker
    ((pid,),) = runs.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'flows lease keeper'"
        " AND datname = current_database()"
    )
    with Hold(runs.dsn, "true", table="workers") as hold:
        # It is renewing, so that nothing is judged before its session ends.
        hold.wait_for_arrival()
        key = claim(runs, register(runs, expired=True))
        runs.connection.execute("SELECT pg_terminate_backend(%s::int, 5000)", (pid,))

    def leases_seen() -> int:
        statement = "SELECT lease_expires_at FROM flows.workers WHERE worker_id = %s"
        seen.update(runs.rows(statement, worker.worker_id))
        return len(seen)

    seen: set[tuple[Any, ...]] = set()
    wait_until(lambda: leases_seen() > 3, what="the lease is renewed again and again")
    assert runs.status(key).status == "running"
    later_s = leases.LEASE.total_seconds() + 1
    monkeypatch.setattr(flows.lease_keeper, "monotonic", lambda: monotonic() + later_s)
    runs.wait_for(key, "queued")


@pytest.mark.usefixtures("renewed_often")
def test_a_worker_that_lost_its_lease_registers_anew_and_goes_on(runs: Runs) -> None:
    registry = Registry()
    gate = Gate()
    attempts: list[int] = []

    @registry.workflow("held")
    def held(wf: Context) -> int:
        attempts.append(wf.attempt)
        gate.pass_through()
        return len(attempts)

    worker = runs.start(registry).worker
    lost = worker.worker_id
    key = runs.begin(held)
    gate.wait_for_arrival()
    # Its runs are released by this or, as soon as it has noticed, by the worker itself.
    leases.release_worker(runs.connection, CONFIG, lost)
    wait_until(
        lambda: (
            worker.worker_id != lost and leases.is_live(runs.connection, CONFIG, worker.worker_id)
        ),
        what="it is registered anew",
    )
    gate.open()
    # What it did under its old name is dropped; under the new one it does it again.
    assert runs.wait_for(key, "completed").attempts == 0
    assert runs.output(key) == 2
    assert attempts == [1, 1]


def test_a_supervised_worker_that_lost_its_lease_claims_nothing_more(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looks before each claim: a lease that was lost since the last look goes unnoticed until then.
    monkeypatch.setattr(leases, "RENEW_INTERVAL", timedelta(0))
    registry = Registry()

    @registry.workflow("number")
    def number(wf: Context, number: int) -> int:
        return number

    rarely = {"poll_interval": timedelta(hours=1), "max_poll_interval": timedelta(hours=1)}
    running = runs.start(registry, supervisor_id=uuid.uuid4(), **rarely)
    first = runs.begin(number, 1)
    runs.wait_for(first, "completed")
    ((dispatcher, _),) = running.worker._dispatchers
    # A claim that is on its way has looked already.
    wait_until(
        lambda: not dispatcher._turns.may_have_due and dispatcher._poll_at_s > monotonic() + 60,
        what="it claims nothing before it is told",
    )
    with runs.connection.transaction():
        leases.release_worker(runs.connection, CONFIG, running.worker.worker_id)
        second = runs.begin(number, 2)
    assert isinstance(running.wait_for_failure(), LeaseLostError)
    assert runs.status(second).status == "queued"
