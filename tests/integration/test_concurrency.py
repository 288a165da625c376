"""Many runs at once: bounded, apart from each other, and each executed once."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, DBConfig, MsgspecCodec, Registry
from flows.claims import claim_runs
from flows.clock import monotonic
from flows.database import connect
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LEDGER = "CREATE TABLE ledger (run_id uuid, step text, worker text)"


class Meter:
    """Counts who is inside, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_attempts_run_at_once_as_the_workflow_allows(runs: Runs, concurrency: int) -> None:
    registry, meter = Registry(), Meter()
    together = threading.Barrier(concurrency)

    @registry.workflow("demo", concurrency=concurrency)
    def demo(wf: Context) -> None:
        with meter:
            # Passes only if as many attempts as allowed are inside at the same time.
            together.wait(timeout=DEADLINE_S)
            # Long enough for one more to come in, if it could.
            leave_s = monotonic() + 0.01
            wait_until(lambda: monotonic() > leave_s, what="it may leave")

    keys = runs.client.begin_many_tx(runs.connection, demo, [None] * 4 * concurrency)
    runs.start(registry)
    for key in keys:
        runs.wait_for(key, "completed")
    assert meter.most == concurrency


def test_a_busy_workflow_does_not_block_another(runs: Runs) -> None:
    registry, gate = Registry(), Gate()

    @registry.workflow("busy")
    def busy(wf: Context) -> None:
        gate.pass_through()

    @registry.workflow("other")
    def other(wf: Context) -> str:
        return "done"

    held = runs.client.begin_many_tx(runs.connection, busy, [None] * 5)
    runs.start(registry)
    gate.wait_for_arrival()
    for _ in range(3):
        runs.wait_for(runs.begin(other), "completed")
    assert {runs.status(key).status for key in held} <= {"running", "queued"}
    gate.open()
    for key in held:
        runs.wait_for(key, "completed")


def test_a_transaction_that_waits_does_not_block_the_others_outcomes(runs: Runs) -> None:
    registry = Registry()
    runs.connection.execute("CREATE TABLE ledger (n int PRIMARY KEY)")

    @registry.workflow("writer", concurrency=2)
    def writer(wf: Context, writes: bool) -> None:
        if writes:
            wf.tx.execute("INSERT INTO ledger VALUES (1)")

    runs.start(registry)
    with psycopg.connect(runs.dsn) as blocker:
        blocker.execute("INSERT INTO ledger VALUES (1)")
        blocked = runs.begin(writer, True)
        runs.wait_for(blocked, "running")
        for _ in range(3):
            runs.wait_for(runs.begin(writer, False), "completed")
        assert runs.status(blocked).status == "running"
        blocker.rollback()
    runs.wait_for(blocked, "completed")


@pytest.fixture
def sharded(flows_dsn: str) -> Iterator[Runs]:
    """Runs over three shards a workflow."""
    runs = Runs(flows_dsn, DBConfig(shard_count=3))
    yield runs
    runs.close()


def test_two_workers_execute_every_run_once(sharded: Runs) -> None:
    sharded.connection.execute(LEDGER)

    def registry_of(worker: str) -> Registry:
        registry = Registry()

        @registry.workflow("demo", concurrency=4, codec=MsgspecCodec())
        def demo(wf: Context, n: int) -> int:
            def step(given: int) -> int:
                with psycopg.connect(sharded.dsn, autocommit=True) as connection:
                    connection.execute(
                        "INSERT INTO ledger VALUES (%s, 'step', %s)", (wf.run_id, worker)
                    )
                return given

            wf.execute("step/v1", step, n)
            wf.tx.execute("INSERT INTO ledger VALUES (%s, 'tx', %s)", (wf.run_id, worker))
            return n

        return registry

    registries = [registry_of("one"), registry_of("other")]
    [handle] = registries[0].workflows()
    keys = sharded.client.begin_many_tx(sharded.connection, handle, range(100))
    for registry in registries:
        sharded.start(registry)
    keys += [sharded.begin(handle, n) for n in range(100, 150)]
    for key in keys:
        sharded.wait_for(key, "completed")
    assert [sharded.output(key) for key in keys] == list(range(150))
    entries = sharded.rows("SELECT run_id, count(*), count(DISTINCT step) FROM ledger GROUP BY 1")
    assert sorted(entries) == sorted((key.run_id, 2, 2) for key in keys)
    assert sharded.rows("SELECT DISTINCT worker FROM ledger ORDER BY 1") == [("one",), ("other",)]
    assert sharded.rows("SELECT DISTINCT claim FROM flows.runs") == [(1,)]


def test_both_workers_get_their_share_of_long_runs(runs: Runs) -> None:
    together = threading.Barrier(2)
    names: list[str] = []

    def registry_of(worker: str) -> Registry:
        registry = Registry()

        @registry.workflow("demo")
        def demo(wf: Context) -> None:
            # Two runs, each waiting for the other: one worker alone would never finish.
            together.wait(timeout=DEADLINE_S)
            names.append(worker)

        return registry

    registries = [registry_of("one"), registry_of("other")]
    for registry in registries:
        runs.start(registry)
    keys = runs.client.begin_many_tx(runs.connection, "demo", [None, None])
    for key in keys:
        runs.wait_for(key, "completed")
    assert sorted(names) == ["one", "other"]


def test_attempts_in_one_process_do_not_see_each_other(runs: Runs) -> None:
    registry = Registry()
    together = threading.Barrier(4)

    @registry.workflow("demo", concurrency=4)
    def demo(wf: Context, n: int) -> list[Any]:
        together.wait(timeout=DEADLINE_S)
        own = wf.execute("step/v1", lambda given: given, n)
        number = wf.random_uint64("salt/v1")
        together.wait(timeout=DEADLINE_S)
        return [own, number, str(wf.run_id)]

    runs.start(registry)
    keys = runs.client.begin_many_tx(runs.connection, demo, range(4))
    for key in keys:
        runs.wait_for(key, "completed")
    outputs = [runs.output(key) for key in keys]
    assert [own for own, _, _ in outputs] == [0, 1, 2, 3]
    assert len({number for _, number, _ in outputs}) == 4
    assert [run_id for _, _, run_id in outputs] == [str(key.run_id) for key in keys]


def test_a_flood_of_runs_is_drained(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo", concurrency=8)
    def demo(wf: Context, n: int) -> int:
        return wf.execute("step/v1", lambda given: given + 1, n)

    runs.client.begin_many_tx(runs.connection, demo, range(3000))
    runs.start(registry)
    unfinished = "SELECT count(*) FROM flows.runs WHERE status <> 'completed'"
    wait_until(lambda: runs.rows(unfinished) == [(0,)], what="all are done")
    [(different, wrong)] = runs.rows(
        "SELECT count(DISTINCT output_json),"
        " count(*) FILTER (WHERE output_json::int <> input_json::int + 1) FROM flows.runs"
    )
    assert (different, wrong) == (3000, 0)


@pytest.mark.parametrize("count", [5, 60])
def test_runs_are_handed_to_executors_oldest_first(runs: Runs, count: int) -> None:
    keys = [runs.begin("demo", number) for number in range(count)]
    with connect(runs.dsn) as connection:
        claimed = claim_runs(connection, "flows", ["demo_0"], count, uuid.uuid4())
    assert [run.run_id for run in claimed.runs] == [str(key.run_id) for key in keys]
