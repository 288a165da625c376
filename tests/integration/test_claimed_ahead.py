"""Runs claimed ahead: what no executor comes to goes back, as if nobody had taken it."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry, RunKey, writes
from flows.board import Board
from flows.claims import claim_runs
from flows.clock import monotonic
from flows.database import connect
from flows.records import Outcome, OutcomeKind, RunRecord
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from flows.registry import Workflow

SHORT = "SELECT DISTINCT status, claim, output_json FROM flows.runs WHERE input_json = 'false'"
STATE = """
    SELECT run_id, status, worker_id, attempts, priority, created_at, started_at, next_wake_at,
        deadline
    FROM flows.runs ORDER BY created_at
"""


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def claims_ahead(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a worker that claims twenty runs ahead, by what the process before it could do."""
    # However slow this machine is just now.
    monkeypatch.setattr("flows.lookahead.HORIZON_S", 1.0)
    return {"board": board_of(20.0)}


def board_of(rate: float, executors: int = 1) -> Board:
    fd = Board.open(executors, rate)
    board = Board(fd)
    os.close(fd)
    return board


def mixed(gate: Gate | None = None, **options: Any) -> tuple[Registry, Workflow[Any, Any]]:
    """Return a registry whose runs are short, or stop at the gate; without one it is the other."""
    registry = Registry()

    @registry.workflow("mixed", **options)
    def run(wf: Context, is_held: bool) -> str:
        if is_held and gate is not None:
            gate.pass_through()
        return "other" if gate is None else "one"

    return registry, run


def begin(runs: Runs, *are_held: bool) -> list[RunKey]:
    """Begin runs one after another: those of one transaction are equally old."""
    return [runs.begin("mixed", is_held) for is_held in are_held]


def pass_time(seconds: float) -> None:
    """Let a worker have time for what it should not do."""
    until_s = monotonic() + seconds
    wait_until(lambda: monotonic() > until_s, what="the time is over")


def test_what_waits_behind_a_slow_run_goes_to_a_worker_that_is_free(
    runs: Runs, gate: Gate, claims_ahead: dict[str, Any]
) -> None:
    _, *short = begin(runs, True, *[False] * 20)
    runs.start(mixed(gate)[0], **claims_ahead)
    gate.wait_for_arrival()
    runs.start(mixed()[0])
    for key in short:
        runs.wait_for(key, "completed")
    assert runs.rows(SHORT) == [("completed", 2, "other")]
    gate.open()


def test_a_worker_alone_gives_back_once_and_claims_when_it_is_free(
    runs: Runs, gate: Gate, claims_ahead: dict[str, Any]
) -> None:
    begin(runs, True, *[False] * 20)
    runs.start(mixed(gate)[0], **claims_ahead)
    gate.wait_for_arrival()
    wait_until(lambda: runs.rows(SHORT) == [("queued", 1, None)], what="they are given back")
    begin(runs, True)
    pass_time(1.0)
    assert runs.rows(SHORT) == [("queued", 1, None)]
    gate.open()
    wait_until(lambda: runs.rows(SHORT) == [("completed", 2, "one")], what="they are done")


def test_nothing_is_claimed_ahead_for_executors_that_do_not_finish(runs: Runs, gate: Gate) -> None:
    begin(runs, True)
    runs.start(mixed(gate)[0], board=board_of(10_000.0))
    gate.wait_for_arrival()
    pass_time(0.1)
    keys = begin(runs, *[False] * 20)
    runs.start(mixed()[0])
    for key in keys:
        runs.wait_for(key, "completed")
    assert runs.rows(SHORT) == [("completed", 1, "other")]
    gate.open()


def test_a_suspect_that_waits_to_run_alone_keeps_its_turn(
    runs: Runs, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, suspect, behind = begin(runs, True, False, False)
    runs.connection.execute(
        "UPDATE flows.runs SET is_suspect = true WHERE run_id = %s", (suspect.run_id,)
    )
    runs.start(mixed(gate, concurrency=3)[0])
    gate.wait_for_arrival()
    runs.wait_for(behind, "queued")
    pass_time(1.0)
    claims = "SELECT status, claim FROM flows.runs ORDER BY created_at"
    assert runs.rows(claims) == [("running", 1), ("running", 1), ("queued", 1)]
    gate.open()
    for key in (held, suspect, behind):
        runs.wait_for(key, "completed")
    assert [claim for _, claim in runs.rows(claims)] == [1, 1, 2]


def test_a_run_that_is_not_begun_loses_no_time_of_its_run_timeout(
    runs: Runs, gate: Gate, claims_ahead: dict[str, Any]
) -> None:
    slow, *short = begin(runs, True, *[False] * 20)
    registry, _ = mixed(gate, run_timeout=timedelta(seconds=2))
    runs.start(registry, timeout_grace=timedelta(milliseconds=100), **claims_ahead)
    assert "RunTimeoutError" in (runs.wait_for(slow, "failed").error or "")
    for key in short:
        runs.wait_for(key, "completed")
    gate.open()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_run_given_back_shows_that_it_never_began(
    runs: Runs,
    gate: Gate,
    claims_ahead: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_stopped: bool,
) -> None:
    if is_stopped:
        monkeypatch.setattr("flows.dispatcher.PATIENCE_S", 3600.0)
    _, short = begin(runs, True, False)
    running = runs.start(mixed(gate, run_timeout=timedelta(hours=1))[0], **claims_ahead)
    gate.wait_for_arrival()
    if is_stopped:
        runs.wait_for(short, "running")
        running.worker.stop()
    wait_until(lambda: runs.rows(SHORT) == [("queued", 1, None)], what="it is given back")
    times = "SELECT started_at, deadline FROM flows.runs WHERE status = 'queued'"
    assert runs.rows(times) == [(None, None)]
    gate.open()


def test_a_run_that_was_not_begun_is_as_it_was_before(runs: Runs) -> None:
    """Its place in the queue, and whatever limits its time."""
    for deadline, priority in ((None, 0), (1.0, 0), (1.123457, 3), (100.0, 0), (10**7 + 0.1, 9)):
        runs.client.begin_tx(
            runs.connection,
            "mixed",
            deadline=None if deadline is None else timedelta(minutes=deadline),
            priority=priority,
        )
    began = begin(runs, False)[0]
    runs.connection.execute(
        "UPDATE flows.runs SET status = 'sleeping', started_at = created_at, attempts = 2,"
        " next_wake_at = now(), deadline = now() + interval '1 minute' WHERE run_id = %s",
        (began.run_id,),
    )
    before = runs.rows(STATE)
    with connect(runs.dsn) as connection:
        claimed = claim_runs(
            connection, "flows", ["mixed_0"], 10, uuid.uuid4(), run_timeout_s=3600.0
        ).runs
        assert len(claimed) == 6
        assert runs.rows("SELECT count(started_at), count(deadline) FROM flows.runs") == [(6, 6)]
        records = []
        for run in claimed:
            record = RunRecord(run.shard, run.run_id, run.claim)
            record.outcome = Outcome(OutcomeKind.NOT_BEGUN, later_s=run.later_s)
            records.append(record)
        writes.send(connection, "flows", writes.statements_for(records))
    as_queued = [(row[0], "queued", *row[2:]) for row in before]
    assert runs.rows(STATE) == as_queued
    assert runs.rows("SELECT DISTINCT claim FROM flows.runs") == [(1,)]
