"""How long an idle worker takes: begin committed to completion visible, one run at a time.

python -m benchmarks.latency [--runs 500]
"""

from __future__ import annotations

import argparse
import statistics

import psycopg

import flows
from benchmarks.arena import arena, describe_machine, fresh_schema, worker_process
from flows.clock import monotonic

__all__ = ["latencies_ms", "main"]

GOALS_MS = {50: 4.0, 99: 15.0}


def latencies_ms(dsn: str, runs: int) -> list[float]:
    """Begin one run after the other and return how long each took, in milliseconds."""
    fresh_schema(dsn)
    client = flows.Client()
    taken = []
    with (
        worker_process("benchmarks.noop_worker", dsn, "10"),
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        for number in range(runs):
            key = client.begin_tx(connection, "noop", number)
            began = monotonic()
            while client.get_run_status_tx(connection, key).status != "completed":
                if monotonic() - began > 10:
                    raise SystemExit(f"run {key} did not complete in 10 s")
            taken.append((monotonic() - began) * 1000)
    return taken


def main() -> int:
    """Measure, print the percentiles; 1 if one misses its goal."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=500)
    with arena() as dsn:
        print(describe_machine(dsn))
        taken = latencies_ms(dsn, options.parse_args().runs)
    percentiles = statistics.quantiles(taken, n=100, method="inclusive")
    for percent, goal in GOALS_MS.items():
        print(f"p{percent}: {percentiles[percent - 1]:.2f} ms (goal {goal:g})")
    return int(any(percentiles[percent - 1] > goal for percent, goal in GOALS_MS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
