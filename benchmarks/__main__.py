"""flows and its peers at the same work, on a PostgreSQL of its own: `python -m benchmarks`.

python -m benchmarks [--quick] [--only W3,W7] [--out FOLDER] [--repetitions N] [--peers NAMES]

Writes a report with every target, medians and spreads, machine and versions, and plots. A
workload or a peer that fails is told in the report, and the others go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.arena import arena, describe_machine
from benchmarks.bench import Bench
from benchmarks.contenders import PEERS, version_of
from benchmarks.report import write_report
from benchmarks.workloads.latency import w3, w9, w10
from benchmarks.workloads.processes import w4
from benchmarks.workloads.scale import w11, w12
from benchmarks.workloads.throughput import w1, w2, w5, w6
from benchmarks.workloads.writing import w7, w8
from flows.clock import monotonic

__all__ = ["WORKLOADS", "main"]

WORKLOADS = {
    "W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6,
    "W7": w7, "W8": w8, "W9": w9, "W10": w10, "W11": w11, "W12": w12,
}  # fmt: skip
NEED_PEERS = {"W1", "W3"}


def main() -> int:
    """Measure what was asked for and write the report."""
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the runs, once")
    options.add_argument("--only", default=",".join(WORKLOADS), help="workloads, by commas")
    options.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options.add_argument("--repetitions", type=int, help="3, or 1 with --quick")
    options.add_argument("--peers", default=",".join(PEERS), help="by commas; none for no peer")
    options.add_argument("--scale", type=float, help="of the numbers of runs: 1, or 0.1")
    given = options.parse_args()
    chosen = given.only.split(",")
    peers = [] if given.peers == "none" else given.peers.split(",")
    if unknown := [name for name in chosen if name not in WORKLOADS]:
        options.error(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if unknown := [name for name in peers if name not in PEERS]:
        options.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    scale = given.scale or (0.1 if given.quick else 1.0)
    repetitions = given.repetitions or (1 if given.quick else 3)
    with arena() as dsn:
        machine = describe_machine(dsn)
        print(machine, flush=True)
        bench = Bench(dsn, scale, repetitions)
        for name in peers if NEED_PEERS & set(chosen) else []:
            try:
                bench.peers[name] = version_of(name)
            except Exception as error:  # noqa: BLE001  it is reported
                bench.fail(name, error)
        for name in chosen:
            began_s = monotonic()
            print(f"{name}: {(WORKLOADS[name].__doc__ or '').strip()}", flush=True)
            try:
                WORKLOADS[name](bench)
            except (Exception, SystemExit) as error:  # noqa: BLE001  the others go on
                bench.fail(name, error)
            print(f"{name} took {monotonic() - began_s:.0f} s", flush=True)
            write_report(given.out, machine, bench, chosen)
    print(f"written: {given.out / 'report.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
