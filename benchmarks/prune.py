"""How much `flows prune` of old runs slows one worker process that drains no-op runs at full load.

python -m benchmarks.prune [--old 100000] [--runs 50000] [--repeat 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

import psycopg

from benchmarks.arena import arena, describe_machine
from benchmarks.drain import drain

__all__ = ["main"]

GOAL = 0.85

_OLD = """
    INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
        created_at, updated_at, finished_at, claim)
    SELECT 'old_0', (lpad(to_hex((extract(epoch FROM now() - interval '90 days') * 1000)::bigint
        + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid, 'old', 'completed', '1',
        now() - interval '90 days', now() - interval '90 days', now() - interval '90 days', 1
    FROM generate_series(1, %s) AS n
"""
_STEPS = """
    INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status, output_json)
    SELECT workflow_name_shard, run_id, 'step/v1', 'completed', '1' FROM flows.runs
"""


def rate(dsn: str, runs: int, old: int, *, prunes: bool) -> float:
    """Return how many runs a second are drained, beside old ones that are deleted or are not."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "prune"]
    started: list[subprocess.Popen[bytes]] = []

    def prepare(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_OLD, (old,))
            connection.execute(_STEPS)
            connection.execute("VACUUM ANALYZE flows.runs, flows.steps")
        if prunes:
            options = ["--older-than", "30d", "--workflow", "old", "--yes", "--dsn", dsn]
            started.append(subprocess.Popen([*command, *options], stdout=subprocess.PIPE))

    try:
        return drain(dsn, runs, 10, prepare)
    finally:
        for process in started:
            is_through = process.poll() is not None
            print(f"prune {'was through before' if is_through else 'went on beyond'} the drain")
            said, _ = process.communicate()
            print(f"prune: {said.decode().strip()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    ratios = []
    with arena() as dsn:
        print(describe_machine(dsn))
        for _ in range(options.repeat):
            alone = rate(dsn, options.runs, options.old, prunes=False)
            beside = rate(dsn, options.runs, options.old, prunes=True)
            ratios.append(beside / alone)
            print(f"alone {alone:.0f}/s, beside prune {beside:.0f}/s: {ratios[-1]:.2f}")
    ratio = statistics.median(ratios)
    print(f"median {ratio:.2f}, goal {GOAL}: {'reached' if ratio >= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
