"""What the supervisor costs and how fast it is: recovery, memory, idling, a reload under load.

python -m benchmarks.supervisor [recovery] [takeover] [memory] [idle] [reload] [--kills 200]

Each prints its figures beside its goals. Reads /proc, so Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

import flows
from benchmarks.arena import arena, describe_machine, fresh_schema, spread, wait_until
from flows.cli.control import ask
from flows.clock import StopSignal, monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

APP = "benchmarks.supervised_app:registry"
TAKEOVER_RUNS = 15_000
TICKS = os.sysconf("SC_CLK_TCK")


class Supervised:
    """A supervisor whose events are read."""

    def __init__(self, process: subprocess.Popen[bytes], control: Path) -> None:
        self.process = process
        self.control = control
        self._rest = b""
        self.said: list[str] = []

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Return the first match in what it says from here on."""
        deadline_s = monotonic() + timeout_s
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        while monotonic() < deadline_s:
            while self.said:
                if match := re.search(pattern, self.said.pop(0)):
                    return match
            if select.select([fd], [], [], 1.0)[0]:
                data = os.read(fd, 1 << 16)
                if not data:
                    break
                *lines, self._rest = (self._rest + data).split(b"\n")
                self.said += [line.decode() for line in lines]
        raise SystemExit(f"the supervisor has not said {pattern!r}")


@contextlib.contextmanager
def supervised(dsn: str, **environment: str) -> Iterator[Supervised]:
    """Run `flows supervise` and stop it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                sys.executable, "-c", "from flows.cli import main; main()", "supervise", APP,
                "--dsn", dsn, "--control", f"{folder}/control.sock",
            ],
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )  # fmt: skip
        try:
            yield Supervised(process, Path(folder, "control.sock"))
        finally:
            process.terminate()
            process.communicate(timeout=60)


def children(pid: int) -> dict[int, str]:
    """Return the children of a process with their titles."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(each): Path(f"/proc/{each}/cmdline").read_bytes().rstrip(b"\0").decode()
        for each in pids
    }


def pss_mb(pid: int) -> float:
    """Return a process's share of the memory it holds."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def recovery(dsn: str, kills: int) -> bool:
    """SIGKILL a child of a parent of 200 MB, again and again; to a replacement that can claim."""
    fresh_schema(dsn)
    taken = []
    with supervised(dsn, BALLAST_KB="200000") as it:
        it.wait_for("worker work0 ready")
        for _ in range(kills):
            # Asked to restart it forgets earlier deaths: each of these is a first one.
            ask(it.control, {"do": "restart", "name": "work0"}, patient=True)
            pid = int(it.wait_for(r"worker work0 started \(pid (\d+)\)")[1])
            it.wait_for("worker work0 ready")
            began_s = monotonic()
            os.kill(pid, signal.SIGKILL)
            it.wait_for("worker work0 started")
            it.wait_for("worker work0 ready")
            taken.append((monotonic() - began_s) * 1000)
    return report_percentiles("death to replacement claiming", taken, {50: 150.0, 99: 400.0})


def takeover(dsn: str, kills: int) -> bool:
    """SIGKILL a child with 10 executing and 200 claimed runs; to all of them claimed anew."""
    fresh_schema(dsn)
    taken: list[float] = []
    innocent: list[float] = []
    claimed: list[float] = []
    client = flows.Client()
    with (
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(dsn, autocommit=True) as connection,
        supervised(dsn, CONCURRENCY="10", HOLD=f"{folder}/hold") as it,
    ):
        hold = Path(folder, "hold")

        def held_by(pid: int) -> list[tuple[str, int]]:
            return connection.execute(
                "SELECT run_id, claim FROM flows.runs JOIN flows.workers USING (worker_id)"
                " WHERE pid = %s ORDER BY run_id",
                (pid,),
            ).fetchall()

        # By the primary key, whatever the planner believes: a look at the whole table at every
        # moment would slow down what is measured.
        connection.execute("SET enable_seqscan = off")

        def left() -> int:
            rows = connection.execute(
                "SELECT run_id, claim FROM flows.runs WHERE workflow_name_shard = 'work0_0'"
                " AND run_id = ANY(%s::uuid[]) AND status <> 'completed'",
                ([run_id for run_id, _ in held],),
            ).fetchall()
            return len(set(held) & set(rows))

        it.wait_for("worker work0 ready")
        while len(taken) < kills:
            ask(it.control, {"do": "restart", "name": "work0"}, patient=True)
            pid = int(it.wait_for(r"worker work0 started \(pid (\d+)\)")[1])
            it.wait_for("worker work0 ready")
            it.wait_for("exited with code 0, as it was to")
            # Runs without work: it learns how many it can do, and claims so many ahead.
            # In many transactions: of runs begun at the same moment nobody is first in the queue.
            for first in range(0, TAKEOVER_RUNS, 100):
                client.begin_many_tx(connection, "work0", range(first, first + 100))
            wait_until(lambda: completed(connection) >= 3000, 60, "the first runs", every_s=0.002)
            hold.touch()
            held, before = held_by(pid), list[tuple[str, int]]()
            while held != before:
                # What is being committed still goes through.
                StopSignal().wait(0.3)
                held, before = held_by(pid), held
            if len(held) >= 210:
                began_s = monotonic()
                os.kill(pid, signal.SIGKILL)
                hold.unlink()
                wait_until(lambda: left() <= 10, 60, "the innocent to be claimed", every_s=0.002)
                innocent.append((monotonic() - began_s) * 1000)
                wait_until(lambda: left() == 0, 60, "all to be claimed anew", every_s=0.002)
                taken.append((monotonic() - began_s) * 1000)
                claimed.append(float(len(held) - 10))
                # Read here, so that it is not taken for the one that is asked for next.
                it.wait_for("worker work0 ready")
            else:
                hold.unlink()
            wait_until(lambda: completed(connection) == TAKEOVER_RUNS, 60, "the runs")
            connection.execute("DELETE FROM flows.runs")
    print(f"executing 10, claimed besides {spread(claimed)}")
    goals = {50: 150.0, 99: 500.0}
    report_percentiles("death to all but the suspects claimed anew", innocent, goals)
    return report_percentiles("death to all claimed anew", taken, goals)


def completed(connection: psycopg.Connection[tuple[int]]) -> int:
    """Return how many runs are completed."""
    row = connection.execute(
        "SELECT count(*) FROM flows.runs WHERE status = 'completed'"
    ).fetchone()
    assert row is not None
    return row[0]


def report_percentiles(what: str, taken: list[float], goals: dict[int, float]) -> bool:
    """Print percentiles in milliseconds; tell whether they reach their goals."""
    percentiles = statistics.quantiles(taken, n=100, method="inclusive")
    for percent, goal in goals.items():
        print(
            f"{what}, p{percent} of {len(taken)}: {percentiles[percent - 1]:.0f} ms (goal {goal:g})"
        )
    return all(percentiles[percent - 1] <= goal for percent, goal in goals.items())


def memory(dsn: str) -> bool:
    """Eight children of a parent that has imported numpy and pandas."""
    missing = [name for name in ("numpy", "pandas") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"memory: not measured, {' and '.join(missing)} are not installed")
        return True
    fresh_schema(dsn)
    with supervised(dsn, IMPORTS="numpy pandas", WORKFLOWS="8") as it:
        for _ in range(9):
            it.wait_for("ready in")
        family = children(it.process.pid)
        template = next(pid for pid, title in family.items() if "template" in title)
        workers = [pid for pid, title in family.items() if "worker" in title]
        resident = Path(f"/proc/{template}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", resident)
        assert match is not None
        alone_mb = int(match[1]) / 1024
        total_mb = sum(map(pss_mb, [template, *workers]))
    print(
        f"memory: the parent {alone_mb:.0f} MB, with its {len(workers)} children {total_mb:.0f} MB:"
        f" {total_mb / alone_mb:.2f} times (goal 1.3)"
    )
    return total_mb / alone_mb <= 1.3


def idle(dsn: str, settle_s: float = 270.0, seconds: float = 180.0) -> bool:
    """Twenty workflows with nothing to do."""
    fresh_schema(dsn)
    with supervised(dsn, WORKFLOWS="20") as it, psycopg.connect(dsn, autocommit=True) as watching:
        for _ in range(21):
            it.wait_for("ready in")
        # Polls grow rarer while nothing is found, until there is one in three minutes.
        StopSignal().wait(settle_s)
        everybody = [it.process.pid, *children(it.process.pid)]

        def transactions() -> int:
            watching.execute("SELECT pg_stat_force_next_flush()")
            row = watching.execute(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database"
                " WHERE datname = current_database()"
            ).fetchone()
            assert row is not None
            return int(row[0])

        cpu_before = sum(map(cpu_s, everybody))
        before, began_s = transactions(), monotonic()
        StopSignal().wait(seconds)
        took_s = monotonic() - began_s
        share = (sum(map(cpu_s, everybody)) - cpu_before) / took_s * 100
        # Of these, two statements are our own.
        rate = (transactions() - before - 2) / took_s
    print(
        f"idle: {len(everybody)} processes use {share:.2f} % of a core (goal 0.5),"
        f" {rate:.2f} transactions a second (goal 1)"
    )
    return share < 0.5 and rate <= 1.0


def reload(dsn: str, runs: int = 60_000) -> bool:
    """Reload while runs are executed: throughput in each half of a second, duplicates, failures."""
    fresh_schema(dsn)
    client = flows.Client()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS ledger (run_id uuid NOT NULL)")
        connection.execute("TRUNCATE ledger")
        with supervised(dsn, LEDGER="1") as it:
            it.wait_for("worker work0 ready")
            client.begin_many_tx(connection, "work0", range(runs))
            for _ in range(3):
                StopSignal().wait(1.0)
                it.process.send_signal(signal.SIGHUP)
                it.wait_for("reloaded in")

            def left() -> int:
                row = connection.execute(
                    "SELECT count(*) FROM flows.runs WHERE status NOT IN ('completed', 'failed')"
                ).fetchone()
                assert row is not None
                return int(row[0])

            wait_until(lambda: left() == 0, 300, "all runs to end")
        windows = connection.execute(
            "SELECT count(r.run_id) FROM (SELECT generate_series(min(finished_at),"
            " max(finished_at) - interval '0.5 s', interval '0.5 s') AS t FROM flows.runs) w"
            " LEFT JOIN flows.runs r ON r.finished_at >= w.t"
            " AND r.finished_at < w.t + interval '0.5 s' GROUP BY w.t ORDER BY w.t"
        ).fetchall()
        facts = connection.execute(
            "SELECT (SELECT count(*) FROM flows.runs WHERE status = 'failed'),"
            " count(*), count(DISTINCT run_id) FROM ledger"
        ).fetchone()
        assert facts is not None
        connection.execute("DROP TABLE ledger")
    counts = [int(row[0]) for row in windows]
    failed, done, distinct = map(int, facts)
    print(
        f"three reloads under load: {min(counts)} to {max(counts)} runs in each 500 ms (never 0),"
        f" {done - distinct} executed twice, {failed} failed, {runs - distinct} missing"
    )
    return min(counts) > 0 and done == distinct == runs and failed == 0


def main() -> int:
    """Measure what is asked for; 1 if something misses its goal."""
    killing = {"recovery": recovery, "takeover": takeover}
    measurements = {"memory": memory, "idle": idle, "reload": reload}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", nargs="*", choices=[*killing, *measurements, []])
    options.add_argument("--kills", type=int, default=200)
    given = options.parse_args()
    wanted = given.what or [*killing, *measurements]
    good = True
    with arena() as dsn:
        print(describe_machine(dsn))
        for name in wanted:
            ok = killing[name](dsn, given.kills) if name in killing else measurements[name](dsn)
            good = ok and good
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
