"""How fast schedules are fired, and how punctually.

    python -m benchmarks.schedules --schedules 10000

Fires schedules that are all due at once, by one process and by two side by side; then measures how
late the ticks of an idle worker's schedule are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import psycopg

from benchmarks.arena import arena, describe_machine, fresh_schema
from flows import Client, Context, DBConfig, Registry, Worker, every, parse_cron
from flows.database import connect
from flows.firing import fire_due

registry = Registry()
PAST = datetime(2026, 1, 1, tzinfo=UTC)


@registry.workflow("tick")
def tick(wf: Context, n: int) -> None:
    """Do nothing."""


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=100)
    arguments = parser.parse_args()
    with arena() as dsn:
        print(describe_machine(dsn))
        fresh_schema(dsn)
        measure_cron()
        for processes in (1, 2):
            measure_firing(dsn, arguments.schedules, processes)
        measure_lateness(dsn, arguments.ticks)


def measure_cron() -> None:
    """Time `next` of the expression whose next time is farthest, and of a common one."""
    for expression in ("0 0 29 2 *", "*/5 9-17 * * 1-5"):
        schedule = parse_cron(expression, "Europe/Berlin")
        began_s = time.perf_counter()
        for index in range(500):
            schedule.next(PAST + timedelta(days=index))
        took_s = time.perf_counter() - began_s
        print(f"next of {expression!r}: {took_s / 500 * 1e6:.0f} us")


def measure_firing(dsn: str, count: int, processes: int) -> None:
    """Fire `count` due schedules and check that each began one run."""
    client = Client(now=lambda: PAST)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM flows.runs")
        connection.execute("DELETE FROM flows.schedules")
        with connection.transaction():
            for index in range(count):
                rule = parse_cron(f"{index % 60} * * * *", "Europe/Berlin")
                client.schedule_tx(connection, tick, index, f"s{index}", rule)
        connection.execute("ANALYZE")
        began_s = time.perf_counter()
        firing = [multiprocessing.Process(target=fire_all, args=(dsn,)) for _ in range(processes)]
        for each in firing:
            each.start()
        for each in firing:
            each.join()
        took_s = time.perf_counter() - began_s
        row = connection.execute("SELECT count(*) FROM flows.runs").fetchone()
    assert row is not None
    print(f"{count} due schedules, {processes} firing: {took_s:.2f} s, {row[0]} runs")


def fire_all(dsn: str) -> None:
    """Fire until nothing is due."""
    with connect(dsn) as connection:
        while fire_due(connection, DBConfig(), ["tick"], "flows_run_wakeup").schedules:
            pass


def measure_lateness(dsn: str, ticks: int) -> None:
    """Have an idle worker fire a schedule every 200 ms."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM flows.runs")
        connection.execute("DELETE FROM flows.schedules")
        worker = Worker(registry, dsn)
        thread = threading.Thread(target=worker.run)
        thread.start()
        Client().schedule_tx(connection, tick, 0, "fast", every(timedelta(milliseconds=200)))
        rows: list[tuple[uuid.UUID, datetime]] = []
        while len(rows) < ticks:
            thread.join(1)
            cursor = connection.execute("SELECT run_id, created_at FROM flows.runs")
            rows = cursor.fetchall()
        worker.stop()
        thread.join()
    # The id of a tick's run holds the time of the tick, in milliseconds.
    fired_ms = sorted(begun.timestamp() * 1000 - (run_id.int >> 80) for run_id, begun in rows)
    print(
        f"{len(rows)} ticks of an idle worker: fired p50 {statistics.median(fired_ms):.1f} ms,"
        f" p99 {fired_ms[int(len(fired_ms) * 0.99) - 1]:.1f} ms, at most {fired_ms[-1]:.1f} ms late"
    )


if __name__ == "__main__":
    main()
