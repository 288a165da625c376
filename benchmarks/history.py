"""Whether history costs anything: the drain with and without a million other runs present.

python -m benchmarks.history [--runs 30000] [--completed 1000000] [--others 100000]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import psycopg

from benchmarks.arena import arena, describe_machine, spread
from benchmarks.drain import drain

__all__ = ["fill", "main"]

GOAL = 0.9

_RUNS = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
    output_json, next_wake_at, finished_at, created_at, updated_at)
SELECT 'noop_0', gen_random_uuid(), 'noop', %(status)s, '1', '1',
    CASE WHEN %(status)s = 'sleeping' THEN now() + n * interval '1 second' + interval '1 day' END,
    CASE WHEN %(status)s = 'completed' THEN now() END,
    now() - interval '1 day', now() - interval '1 hour'
FROM generate_series(1, %(count)s) AS n
"""

_WAITS = """
INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, event_name)
SELECT workflow_name_shard, run_id, 'w/v1', 'event', 'Never'
FROM flows.runs WHERE status = 'waiting_event'
"""


def fill(dsn: str, completed: int, others: int) -> None:
    """Put completed, waiting and sleeping runs of the same shard into the tables."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for status, count in (
            ("completed", completed),
            ("waiting_event", others),
            ("sleeping", others),
        ):
            connection.execute(_RUNS, {"status": status, "count": count})
        connection.execute(_WAITS)
        connection.execute("VACUUM ANALYZE flows.runs")


def main() -> int:
    """Measure both in turn and print the ratio; 1 if it misses the goal."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=30_000)
    options.add_argument("--completed", type=int, default=1_000_000)
    options.add_argument("--others", type=int, default=100_000)
    options.add_argument("--repeat", type=int, default=2)
    chosen = options.parse_args()
    prepare = partial(fill, completed=chosen.completed, others=chosen.others)
    empty: list[float] = []
    filled: list[float] = []
    with arena() as dsn:
        print(describe_machine(dsn))
        for _ in range(chosen.repeat):
            empty.append(drain(dsn, chosen.runs, 10))
            filled.append(drain(dsn, chosen.runs, 10, prepare))
    ratio = statistics.median(one / other for one, other in zip(filled, empty, strict=True))
    print(f"empty tables: {spread(empty)} runs/s")
    print(
        f"with {chosen.completed:,} completed, {chosen.others:,} waiting and sleeping each:"
        f" {spread(filled)} runs/s"
    )
    print(f"ratio: {ratio:.2f} (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
