"""What a run may cost in statements and round trips: counts, which do not vary as times do.

A statement or a round trip more for each batch, or for each run, is a red test here. Batches are
arranged and not left to chance: the committer is held by a lock on the run that comes first, while
the others gather behind it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from flows import Client, Context, Registry, libpq
from flows.claims import claim_runs
from flows.database import connect
from flows.memos import read_memos
from tests.running import Gate
from tests.traffic import Traffic, TrafficCounter
from tests.waiting import wait_for_lock_wait, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import RunningWorker, Runs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libpq is traced on Linux only")

CONCURRENCY = 10

BUDGET = {
    # For a whole batch, however many runs are in it.
    "begin one run": Traffic(1, 1),
    "begin a hundred runs, and notify": Traffic(2, 2),
    "begin one run, or look at it, by a client's own connection": Traffic(1, 1),
    "claim of fresh runs": Traffic(2, 1),
    "claim after a notification": Traffic(3, 1),
    "claim of runs with a thousand memos each": Traffic(3, 2),
    "commit of one-step runs": Traffic(4, 1),
    "a run with a statement by wf.tx": Traffic(4, 3),
}


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrafficCounter:
    # Plans that were slow once are made anew, by another statement.
    monkeypatch.setattr("flows.plans.SLOW_S", float("inf"))
    return TrafficCounter(tmp_path, monkeypatch)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each claim of a dispatcher took."""
    taken: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        claimed = claim_runs(*args, **options)
        taken.append(len(claimed.runs))
        return claimed

    monkeypatch.setattr("flows.dispatcher.claim_runs", counted)
    return taken


@pytest.fixture
def gates() -> list[Gate]:
    return [Gate() for _ in range(CONCURRENCY)]


@pytest.fixture
def registry(gates: list[Gate]) -> Registry:
    registry = Registry()

    def nothing(number: int) -> int:
        if number >= 0:
            gates[number].pass_through()
        return number

    @registry.workflow("noop", concurrency=CONCURRENCY)
    def noop(wf: Context, number: int) -> int:
        return wf.execute("nothing/v1", nothing, number)

    @registry.workflow("long")
    def long(wf: Context, number: int) -> int:
        for step in range(1000):
            wf.execute(f"{step}/v1", lambda: None)
        return number + wf.wait_for_event("go/v1", "Go", int)

    @registry.workflow("book")
    def book(wf: Context, number: int) -> int:
        wf.tx.execute("SELECT 1")
        return number

    return registry


def start(runs: Runs, registry: Registry) -> RunningWorker:
    """Start a worker that looks only when it is told."""
    never = timedelta(hours=1)
    return runs.start(registry, poll_interval=never, max_poll_interval=never)


def drain(runs: Runs, registry: Registry, workflow: str, counter: TrafficCounter) -> Traffic:
    """Execute two runs alone and return what the second sent by attempts' connections."""
    with runs.worker(registry) as worker:
        for number in (-1, -2):
            key = runs.begin(workflow, number)
            counter.take("flows transaction")
            assert worker.process_one()
            runs.wait_for(key, "completed")
        return counter.take("flows transaction")


def test_begins_keep_their_budget(runs: Runs, counter: TrafficCounter) -> None:
    with psycopg.connect(runs.dsn, application_name="test client", autocommit=True) as connection:
        runs.client.begin_tx(connection, "noop", 1)
        counter.take("test client")
        runs.client.begin_tx(connection, "noop", 1)
        assert counter.take("test client") == BUDGET["begin one run"]
        runs.client.begin_many_tx(connection, "noop", range(100))
        assert counter.take("test client") == BUDGET["begin a hundred runs, and notify"]


def test_a_client_with_connections_of_its_own_keeps_its_budget(
    runs: Runs, counter: TrafficCounter
) -> None:
    with Client.connect(runs.dsn) as client:
        key = client.begin("noop", 1)
        counter.take("flows client")
        budget = BUDGET["begin one run, or look at it, by a client's own connection"]
        client.begin("noop", 2)
        assert counter.take("flows client") == budget
        client.status(key)
        assert counter.take("flows client") == budget


def test_claims_and_commits_keep_their_budget(
    runs: Runs, counter: TrafficCounter, registry: Registry, gates: list[Gate], claims: list[int]
) -> None:
    running = start(runs, registry)
    runs.wait_for(runs.begin("noop", -1), "completed")
    wait_until(lambda: claims, what="the dispatcher has claimed")
    worker = running.worker
    committer = worker._services.engine.committer  # type: ignore[union-attr]
    # A run is seen to be completed before its committer has heard so.
    wait_until(lambda: committer.backlog == 0, what="its connection is at rest")
    # The only one that was not needed yet.
    libpq.prepare(committer._connected(), "flows", ["complete_runs"])
    wait_until(lambda: counter.take("flows dispatcher") == (0, 0), what="nothing is said any more")
    claims.clear()

    with runs.connection.transaction():
        keys = runs.client.begin_many_tx(runs.connection, "noop", range(CONCURRENCY))
    for gate in gates:
        gate.wait_for_arrival()
    assert claims[0] == CONCURRENCY
    sent = counter.round_trips("flows committer")
    with psycopg.connect(runs.dsn) as holding:
        holding.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s FOR UPDATE",
            keys[0],
        )
        gates[0].open()
        wait_for_lock_wait(runs.dsn)
        wait_until(
            lambda: counter.round_trips("flows committer") > sent, what="its group is on its way"
        )
        for gate in gates[1:]:
            gate.open()
        wait_until(
            lambda: len([one for one in list(committer._queue) if one.outcome]) >= len(gates) - 1,
            what="the outcomes of the others have gathered",
        )
        counter.take("flows committer")
    for key in keys:
        runs.wait_for(key, "completed")
    assert counter.take("flows committer") == BUDGET["commit of one-step runs"]
    running.stop()
    told, others = BUDGET["claim after a notification"], BUDGET["claim of fresh runs"]
    expected = [first + (len(claims) - 1) * each for first, each in zip(told, others, strict=True)]
    assert counter.take("flows dispatcher") == tuple(expected)


def test_claims_of_runs_with_memos_keep_their_budget(
    runs: Runs, counter: TrafficCounter, registry: Registry
) -> None:
    keys = [runs.begin("long", number) for number in range(3)]
    runs.execute_due(registry)
    for key in keys:
        runs.publish(key, "Go", 1)
    with connect(runs.dsn, "test claim") as connection:
        claim_runs(connection, "flows", ["long_0"], 1, uuid4())  # prepares the statements
        counter.take("test claim")
        claimed = claim_runs(connection, "flows", ["long_0"], 10, uuid4())
    assert [len(read_memos(run.prefetched or "").steps) for run in claimed.runs] == [1000, 1000]
    assert counter.take("test claim") == BUDGET["claim of runs with a thousand memos each"]


def test_transactions_of_attempts_keep_their_budget(
    runs: Runs, counter: TrafficCounter, registry: Registry
) -> None:
    assert drain(runs, registry, "book", counter) == BUDGET["a run with a statement by wf.tx"]
