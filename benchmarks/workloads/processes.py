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

TURNS = 2
"""How often W4 is repeated in a repetition: cores are not as fast in one minute as in the next."""

HOW = {False: "", True: ", pinned"}

_SHARE = """
SELECT sum(output_json::float8) / extract(epoch FROM max(finished_at) - min(started_at)) / {}
FROM flows.runs
"""


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


def _drained(
    bench: Bench, what: str, runs: int, loops: int, *, workflows: tuple[str, ...] = ("cpu",),
    processes: int = 1, pinned: bool = False,
) -> None:  # fmt: skip
    """Measure a drain, and for which part of its time each process had a core for its steps.

    How fast a core is changes from one moment to the next, and with it what is done beside a bare
    loop that runs before or after. This part does not: what is missing of 1 is the engine's, the
    server's and the scheduler's. What the engine does in the thread of a step counts as the step's.
    """
    ours = partial(
        drain, bench.dsn, runs, 10, workflows=workflows, processes=processes, input=loops,
        pinned=pinned,
    )  # fmt: skip
    how = f"flows, {what}{HOW[pinned]}"
    bench.measure("W4", how, ours)
    share = partial(bench.query, bench.dsn, _SHARE.format(processes * len(workflows)))
    bench.measure("W4", f"{how}: its steps had a core", share, "of the time")


def w4(bench: Bench) -> None:
    """One step of 20 ms: bare loops, one process, two of them, and two workflows side by side.

    Ours are measured as they are by default, and pinned to a core each. What two bare loops reach
    beside one is the machine's own limit.
    """
    loops, runs = _loops_of_a_step(), bench.runs(500)
    for _ in range(TURNS * bench.repetitions):
        for processes in (1, 2):
            bare = partial(_bare_per_s, loops, runs, processes)
            bench.measure("W4", f"bare loop, {processes} processes", bare)
            for pinned in HOW:
                _drained(
                    bench, f"{processes} processes", runs * processes, loops,
                    processes=processes, pinned=pinned,
                )  # fmt: skip
        for pinned in HOW:
            _drained(
                bench, "two workflows side by side", runs, loops,
                workflows=("cpu", "cpu2"), pinned=pinned,
            )  # fmt: skip
