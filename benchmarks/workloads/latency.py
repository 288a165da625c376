"""W3, W9 and W10: how long one run takes on an idle worker."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from functools import partial

import psycopg

import flows
from benchmarks.arena import fresh_schema, wait_until, worker_process
from benchmarks.bench import Bench
from benchmarks.contenders import database, peer_latencies_ms
from benchmarks.drain import WORKER
from flows.clock import StopSignal, monotonic

__all__ = ["w3", "w9", "w10"]

_LATE = """
SELECT extract(epoch FROM r.finished_at - w.wake_at)::float8 * 1000 FROM flows.runs AS r
JOIN flows.waits AS w USING (workflow_name_shard, run_id) WHERE r.status = 'completed'
"""
Connection = psycopg.Connection[tuple[object, ...]]


@contextlib.contextmanager
def _idle_worker(dsn: str, workflow: str) -> Iterator[Connection]:
    fresh_schema(dsn)
    with (
        worker_process(WORKER, dsn, workflow, "10"),
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        yield connection


def _wait(connection: Connection, key: flows.RunKey, status: str, timeout_s: float = 30) -> None:
    give_up_s = monotonic() + timeout_s
    while flows.Client().get_run_status_tx(connection, key).status != status:
        if monotonic() > give_up_s:
            raise TimeoutError(f"run {key} is not {status} after {timeout_s} s")


def _latencies_ms(dsn: str, runs: int) -> list[float]:
    taken = []
    with _idle_worker(dsn, "noop") as connection:
        for number in range(runs):
            key = flows.Client().begin_tx(connection, "noop", number)
            began_s = monotonic()
            _wait(connection, key, "completed")
            taken.append((monotonic() - began_s) * 1000)
    return taken


def _events_ms(dsn: str, runs: int, workflow: str = "event", steps: int = 0) -> list[float]:
    taken = []
    with _idle_worker(dsn, workflow) as connection:
        for _ in range(runs):
            key = flows.Client().begin_tx(connection, workflow, steps)
            _wait(connection, key, "waiting_event")
            flows.Client().publish_event_tx(connection, key, "Go", 1)
            began_s = monotonic()
            _wait(connection, key, "completed")
            taken.append((monotonic() - began_s) * 1000)
    return taken


def _sleeps_ms(dsn: str, runs: int) -> list[float]:
    pause = StopSignal()
    with _idle_worker(dsn, "sleep") as connection:
        for _ in range(runs):
            flows.Client().begin_tx(connection, "sleep", 300)
            pause.wait(0.01)
        left = "SELECT count(*) FROM flows.runs WHERE status <> 'completed'"
        wait_until(
            lambda: connection.execute(left).fetchone() == (0,), 30, "the sleepers to complete"
        )
        return [float(str(row[0])) for row in connection.execute(_LATE)]


def _add(bench: Bench, workload: str, name: str, taken: list[float]) -> None:
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    for percent in (50, 99):
        bench.measure(workload, f"{name}, p{percent}", partial(float, cuts[percent - 1]), "ms")


def w3(bench: Bench) -> None:
    """Begin committed to completed, one run at a time, flows and peers in turn."""
    for _ in range(bench.repetitions):
        _add(bench, "W3", "flows", _latencies_ms(bench.dsn, bench.runs(500)))
        for peer in bench.peers:
            try:
                with database(bench.dsn, peer) as dsn:
                    _add(bench, "W3", peer, peer_latencies_ms(peer, dsn, bench.runs(100)))
            except Exception as error:  # noqa: BLE001  it is reported
                bench.fail(f"W3 {peer}", error)


def w9(bench: Bench) -> None:
    """A run of 1,000 memoized steps is resumed by an event."""
    for _ in range(bench.repetitions):
        for steps in (0, 1000):
            taken = _events_ms(bench.dsn, max(3, bench.runs(10)), "replay", steps)
            middle = partial(statistics.median, taken)
            bench.measure("W9", f"flows, {steps} memos, resumed to completed", middle, "ms")


def w10(bench: Bench) -> None:
    """An event published to its run's completion; how late a sleep ends."""
    for _ in range(bench.repetitions):
        _add(bench, "W10", "event", _events_ms(bench.dsn, bench.runs(200)))
        _add(bench, "W10", "sleep, late", _sleeps_ms(bench.dsn, bench.runs(300)))
