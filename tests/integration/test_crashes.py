"""Crashes: suspects are charged, executed alone, and fail when they were charged too often."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RunKey
from flows.board import Board
from flows.claims import claim_runs
from flows.crashes import Charge, Charged, Suspect, charge
from flows.database import connect
from flows.leases import release_worker
from tests.citus import not_on_citus
from tests.running import Gate
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from tests.running import Runs

WORKER = uuid.UUID(int=7)


def claim(runs: Runs, count: int, worker_id: uuid.UUID = WORKER) -> list[Suspect]:
    """Claim runs of `demo` for a worker that will die."""
    with connect(runs.dsn) as connection:
        claimed = claim_runs(connection, "flows", ["demo_0"], count, worker_id)
    assert len(claimed.runs) == count
    return [Suspect(run.run_id, run.claim, "boom/v1") for run in claimed.runs]


def charge_with(runs: Runs, *suspects: Suspect, max_crashes: int = 3) -> Charged:
    """Charge suspects of the worker with a crash."""
    with connect(runs.dsn) as connection:
        return charge(
            connection,
            runs.config,
            Charge(WORKER, 99, "SIGSEGV", suspects, max_crashes),
        )


def test_suspects_are_charged_and_the_others_are_not(runs: Runs) -> None:
    for _ in range(3):
        runs.begin("demo")
    first, second, innocent = claim(runs, 3)
    charged = charge_with(runs, first, second)
    assert {str(key.run_id) for key in charged.queued} == {first.run_id, second.run_id}
    assert not charged.failed
    with connect(runs.dsn) as connection:
        suspects = [first.run_id, second.run_id]
        assert release_worker(connection, runs.config, WORKER, suspects=suspects) == 1
    found = runs.rows("SELECT run_id::text, crashes, is_suspect, attempts, status FROM flows.runs")
    assert sorted(found) == sorted(
        [
            (first.run_id, 1, True, 0, "queued"),
            (second.run_id, 1, True, 0, "queued"),
            (innocent.run_id, 0, False, 0, "queued"),
        ]
    )
    history = runs.rows("SELECT run_id::text, claim, cause, step_key, pid FROM flows.crashes")
    assert sorted(history) == sorted(
        (run_id, 1, "SIGSEGV", "boom/v1", 99) for run_id in (first.run_id, second.run_id)
    )


@not_on_citus("a row cannot go to another shard")
def test_suspects_are_found_in_whatever_shard_they_are(runs: Runs) -> None:
    # Forked, begun with an idempotency key, or before the number of shards was changed.
    runs.begin("demo")
    runs.connection.execute("UPDATE flows.runs SET workflow_name_shard = 'demo_5'")
    with connect(runs.dsn) as connection:
        (run,) = claim_runs(connection, "flows", ["demo_5"], 1, WORKER).runs
    charged = charge_with(runs, Suspect(run.run_id, run.claim, None))
    assert [str(key) for key in charged.queued] == [f"demo_5:{run.run_id}"]


def test_to_charge_again_changes_nothing(runs: Runs) -> None:
    runs.begin("demo")
    [suspect] = claim(runs, 1)
    assert len(charge_with(runs, suspect).queued) == 1
    assert charge_with(runs, suspect) == Charged([], [])
    assert runs.rows("SELECT crashes FROM flows.runs") == [(1,)]
    assert len(runs.rows("SELECT 1 FROM flows.crashes")) == 1


def test_a_run_that_has_moved_on_is_not_charged(runs: Runs) -> None:
    runs.begin("demo")
    [suspect] = claim(runs, 1)
    with connect(runs.dsn) as connection:
        release_worker(connection, runs.config, WORKER)
    [again] = claim(runs, 1)
    assert charge_with(runs, suspect) == Charged([], [])
    [run] = runs.rows("SELECT status, claim, crashes FROM flows.runs")
    assert run == ("running", again.claim, 0)


def test_a_run_held_by_the_dead_workers_open_transaction_is_charged_later(runs: Runs) -> None:
    runs.begin("demo")
    [suspect] = claim(runs, 1)
    with psycopg.connect(runs.dsn) as held:
        held.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = 'demo_0' FOR NO KEY UPDATE"
        )
        assert charge_with(runs, suspect) == Charged([], [])
        with connect(runs.dsn) as connection:
            suspects = [suspect.run_id]
            assert release_worker(connection, runs.config, WORKER, suspects=suspects) == 0
    assert len(charge_with(runs, suspect).queued) == 1


def test_workers_are_told_of_suspects_even_where_nobody_is_innocent(runs: Runs) -> None:
    runs.begin("demo")
    runs.connection.execute("LISTEN flows_run_wakeup")
    charge_with(runs, *claim(runs, 1))
    [told] = runs.connection.notifies(timeout=DEADLINE_S, stop_after=1)
    assert told.payload == "demo_0"


def test_a_run_fails_that_was_charged_as_often_as_it_may_be(runs: Runs) -> None:
    key = runs.begin("demo")
    for crashes in (1, 2):
        assert charge_with(runs, *claim(runs, 1)) == Charged([key], [])
        assert runs.rows("SELECT crashes FROM flows.runs") == [(crashes,)]
    assert charge_with(runs, *claim(runs, 1)) == Charged([], [key])
    status = runs.status(key)
    assert (status.status, status.attempts) == ("failed", 0)
    assert status.error is not None
    assert "died during each of 3 executions" in status.error
    assert "SIGSEGV in step 'boom/v1'" in status.error
    assert len(runs.rows("SELECT 1 FROM flows.crashes")) == 3


def recording(registry: Registry, log: list[tuple[str, Any]], gate: Gate) -> Any:
    """Register a workflow that tells when it begins and ends; one kind stops at a gate."""

    @registry.workflow("demo", concurrency=4)
    def demo(wf: Context, kind: str) -> None:
        log.append(("begin", kind))
        if kind != "quick":
            gate.pass_through()
        log.append(("end", kind))

    return demo


def suspect(runs: Runs, key: RunKey) -> None:
    """Have a run executed alone."""
    runs.connection.execute(
        "UPDATE flows.runs SET is_suspect = true WHERE run_id = %s", (key.run_id,)
    )


def test_a_suspect_begins_when_nothing_else_runs_and_nothing_begins_beside_it(runs: Runs) -> None:
    registry, gate = Registry(), Gate()
    log: list[tuple[str, Any]] = []
    demo = recording(registry, log, gate)
    with runs.connection.transaction():
        runs.begin(demo, "before")
        runs.begin(demo, "before")
        suspect(runs, runs.begin(demo, "suspect"))
        last = [runs.begin(demo, "quick") for _ in range(5)]
    runs.start(registry)
    gate.wait_for_arrival()
    gate.wait_for_arrival()
    assert log == [("begin", "before")] * 2
    gate.open()
    for key in last:
        runs.wait_for(key, "completed")
    begun = log.index(("begin", "suspect"))
    assert log[:begun] == [("begin", "before")] * 2 + [("end", "before")] * 2
    assert log[begun + 1] == ("end", "suspect")


def test_nothing_is_claimed_behind_a_suspect(runs: Runs) -> None:
    registry, gate = Registry(), Gate()

    @registry.workflow("demo", concurrency=4)
    def demo(wf: Context, kind: str) -> None:
        if kind == "waiter":
            wf.wait_for_event("wait/v1", "number")
        if kind == "suspect":
            gate.pass_through()

    fd = Board.open(4, 10_000.0)
    board = Board(fd)
    os.close(fd)
    waiter = runs.begin(demo, "waiter")
    runs.start(registry, board=board)
    runs.wait_for(waiter, "waiting_event")
    with runs.connection.transaction():
        suspect(runs, runs.begin(demo, "suspect"))
    gate.wait_for_arrival()
    others = [runs.begin(demo, "quick") for _ in range(20)]
    # Whether to claim is decided before a run is looked at that was named.
    runs.connection.execute(
        "INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)"
        " VALUES (%s, %s, 'number', '7')",
        (waiter.workflow_name_shard, waiter.run_id),
    )
    runs.connection.execute("SELECT pg_notify('flows_run_wakeup', %s)", (str(waiter),))
    runs.wait_for(waiter, "queued")
    assert {runs.status(key).status for key in others} == {"queued"}
    gate.open()
    for key in others:
        runs.wait_for(key, "completed")


@pytest.mark.parametrize("claimed", [0, 2])
def test_what_waited_behind_a_suspect_begins_when_that_is_cancelled(
    runs: Runs, claimed: int
) -> None:
    registry, gate = Registry(), Gate()
    log: list[tuple[str, Any]] = []
    demo = recording(registry, log, gate)
    with runs.connection.transaction():
        runs.begin(demo, "before")
        key = runs.begin(demo, "suspect")
        suspect(runs, key)
        last = [runs.begin(demo, "quick") for _ in range(claimed)]
    runs.start(registry)
    gate.wait_for_arrival()
    last += [runs.begin(demo, "quick") for _ in range(0 if claimed else 3)]
    with psycopg.connect(runs.dsn) as tx:
        runs.client.cancel_run_tx(tx, key)
    runs.wait_for(key, "cancelled")
    for each in last:
        runs.wait_for(each, "completed")
    assert ("end", "before") not in log
    gate.open()


def test_a_suspect_is_none_any_more_when_an_execution_has_ended(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        return str(wf.wait_for_event("wait/v1", "number"))

    key = runs.begin(demo)
    suspect(runs, key)
    runs.execute_due(registry)
    assert runs.rows("SELECT status, is_suspect FROM flows.runs") == [("waiting_event", False)]


def test_a_suspect_that_is_given_back_unbegun_remains_one(runs: Runs) -> None:
    registry, gate = Registry(), Gate()
    log: list[tuple[str, Any]] = []
    demo = recording(registry, log, gate)
    with runs.connection.transaction():
        runs.begin(demo, "before")
        key = runs.begin(demo, "suspect")
        suspect(runs, key)
    running = runs.start(registry)
    gate.wait_for_arrival()
    wait_until(lambda: runs.status(key).status == "running", what="the suspect is claimed")
    running.worker.stop()
    wait_until(lambda: runs.status(key).status == "queued", what="the suspect is given back")
    gate.open()
    running.wait_until_ended()
    [(is_suspect,)] = runs.rows("SELECT is_suspect FROM flows.runs WHERE run_id = %s", key.run_id)
    assert is_suspect
    assert ("begin", "suspect") not in log
