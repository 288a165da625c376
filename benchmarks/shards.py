"""What shards cost on one server: the drain with one shard, and with many.

python -m benchmarks.shards [--runs 30000] [--shards 32] [--repeat 3]
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.arena import arena, describe_machine, spread
from benchmarks.drain import drain

__all__ = ["main"]

GOAL = 0.8


def main() -> int:
    """Measure both in turn and print the ratio; 1 if it misses the goal."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=30_000)
    options.add_argument("--shards", type=int, default=32)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--concurrency", type=int, default=10)
    chosen = options.parse_args()
    one: list[float] = []
    many: list[float] = []
    with arena() as dsn:
        print(describe_machine(dsn))
        for _ in range(chosen.repeat):
            one.append(drain(dsn, chosen.runs, chosen.concurrency))
            many.append(drain(dsn, chosen.runs, chosen.concurrency, shards=chosen.shards))
    ratio = statistics.median(each / other for each, other in zip(many, one, strict=True))
    print(f"1 shard: {spread(one)} runs/s")
    print(f"{chosen.shards} shards: {spread(many)} runs/s")
    print(f"ratio: {ratio:.2f} (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
