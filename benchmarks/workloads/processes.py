"""W4: pure-Python work on the processor, in one process and in two."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.bench import Bench
from benchmarks.drain import WORKER, drain
from benchmarks.worker_app import burn
from flows.clock import monotonic

__all__ = ["w4"]

STEP_S = 0.02

HOW = {False: "", True: ", pinned"}


def _loops_of_a_step() -> int:
    began_s = monotonic()
    burn(1_000_000)
    return int(1_000_000 * STEP_S / (monotonic() - began_s))


def _bare_per_s(loops: int, times: int, processes: int) -> float:
    command = [sys.executable, "-m", WORKER, "bare", str(loops), str(times)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return sum(times / float(each.communicate(timeout=120)[0]) for each in running)


def w4(bench: Bench) -> None:
    """One step of 20 ms: bare loops, one process, two of them, and two workflows side by side.

    Ours are measured as they are by default, and pinned to a core each. What two bare loops reach
    beside one is the machine's own limit.
    """
    loops, runs = _loops_of_a_step(), bench.runs(500)
    for _ in range(bench.repetitions):
        for processes in (1, 2):
            bare = partial(_bare_per_s, loops, runs, processes)
            bench.measure("W4", f"bare loop, {processes} processes", bare)
            for pinned, how in HOW.items():
                ours = partial(
                    drain, bench.dsn, runs * processes, 10, workflows=("cpu",),
                    processes=processes, input=loops, pinned=pinned,
                )  # fmt: skip
                bench.measure("W4", f"flows, {processes} processes{how}", ours)
        for pinned, how in HOW.items():
            workflows = ("cpu", "cpu2")
            both = partial(
                drain, bench.dsn, runs, 10, workflows=workflows, input=loops, pinned=pinned
            )
            bench.measure("W4", f"flows, two workflows side by side{how}", both)
