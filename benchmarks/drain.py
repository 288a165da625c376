"""How fast one worker process drains runs of one no-op step, beside pgbench on the same server.

python -m benchmarks.drain [--runs 50000] [--repeat 3] [--concurrency 10]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import psycopg

import flows
from benchmarks.arena import (
    arena,
    describe_machine,
    fresh_schema,
    spread,
    wait_until,
    worker_process,
)
from benchmarks.pgbench import one_transaction_per_run

__all__ = ["drain", "main", "one_transaction_per_run"]

GOAL = 1.6


def drain(
    dsn: str,
    runs: int,
    concurrency: int,
    prepare: Callable[[str], None] | None = None,
    shards: int = 1,
) -> float:
    """Enqueue `runs`, let one worker process drain them, and return the runs per second.

    Timed by the database from the first claim to the last commit. `prepare` may put other rows
    into the fresh tables before. The runs are spread over `shards` shards.
    """
    config = flows.DBConfig(shard_count=shards)
    names = flows.shard_values_for_workflow("noop", shards)
    fresh_schema(dsn)
    if prepare is not None:
        prepare(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction():
            flows.Client(db_config=config).begin_many_tx(connection, "noop", range(runs))
        connection.execute("VACUUM ANALYZE flows.runs")
        queued = (
            "SELECT EXISTS (SELECT FROM flows.runs WHERE workflow_name_shard = ANY(%(shards)s)"
            " AND status IN ('queued', 'sleeping')"
            " AND coalesce(next_wake_at, created_at) <= now())"
        )
        running = "SELECT EXISTS (SELECT FROM flows.runs WHERE worker_id IS NOT NULL)"

        def is_drained() -> bool:
            return not any(
                row[0]
                for query in (queued, running)
                for row in connection.execute(query, {"shards": names}).fetchall()
            )

        with worker_process("benchmarks.noop_worker", dsn, str(concurrency), str(shards)):
            wait_until(is_drained, 600, "the worker to drain the queue")
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE status = 'completed'),"
            " extract(epoch FROM max(finished_at) - min(started_at))::float8"
            " FROM flows.runs WHERE started_at IS NOT NULL"
        ).fetchone()
    assert row is not None
    completed, elapsed_s = row
    if completed != runs:
        raise SystemExit(f"{completed} of {runs} runs completed")
    return runs / float(elapsed_s)


def main() -> int:
    """Measure both in turn and print the ratio; 1 if it misses the goal."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=50_000)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--concurrency", type=int, default=10)
    chosen = options.parse_args()
    raw: list[float] = []
    ours: list[float] = []
    with arena() as dsn:
        print(describe_machine(dsn))
        for _ in range(chosen.repeat):
            raw.append(one_transaction_per_run(dsn, 8, chosen.runs))
            ours.append(drain(dsn, chosen.runs, chosen.concurrency))
    ratio = statistics.median(one / other for one, other in zip(ours, raw, strict=True))
    print(f"pgbench, one transaction per run, 8 clients: {spread(raw)} runs/s")
    print(f"flows, one process, concurrency {chosen.concurrency}: {spread(ours)} runs/s")
    print(f"ratio: {ratio:.2f} (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
