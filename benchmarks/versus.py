"""flows beside its peers: the same work on the same server in one run, in turn.

python -m benchmarks.versus [--peers procrastinate,pgqueuer,dbos] [--repeat 3] [--write FILE]

Drain: a queue of runs with one step that does nothing, taken by one worker process of concurrency
10; runs per second from the first completion seen to the last. Latency: begin committed to
completion visible, one run at a time, with an idle worker. Each contender has a database of its
own, made anew each time; peers are installed from PyPI into environments of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.arena import arena, describe_machine
from benchmarks.drain import drain, one_transaction_per_run
from benchmarks.latency import latencies_ms
from flows.clock import StopSignal, monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main", "table"]

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flows-benchmarks"
CONCURRENCY = 10
GIVE_UP_S = 300


class Peer(NamedTuple):
    """Another engine.

    Attributes:
        packages: what is installed for it; the first is the engine.
        runs: how many are drained: enough for seconds, as fast as it is.
        left: SQL for how many are not done.
        work: the argument of its worker: its concurrency, or the size of its batches.
        does: what it does for a run, where that is less or other than what flows does.
    """

    packages: tuple[str, ...]
    runs: int
    left: str
    work: int
    does: str


PEERS = {
    "procrastinate": Peer(
        ("procrastinate", "psycopg[binary,pool]"),
        3000,
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        CONCURRENCY,
        "a job queue: no steps, no memos",
    ),
    "pgqueuer": Peer(
        ("pgqueuer[asyncpg]",),
        20_000,
        "SELECT count(*) FROM pgqueuer",
        50,
        "a job queue: no steps, no memos; batches of 50, completions are written every 0.1 s",
    ),
    "dbos": Peer(
        ("dbos", "psycopg[binary]"),
        1000,
        "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')",
        CONCURRENCY,
        "durable workflows with memoized steps, polling its queue every 10 ms",
    ),
}


class Figures:
    """What was measured of one contender."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.per_s: list[float] = []
        self.latencies_ms: list[float] = []
        self.error = ""


def python_of(name: str) -> str:
    """Return the Python of a peer's environment, which is made if need be."""
    folder = HOME / name
    python = str(folder / "bin" / "python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", *PEERS[name].packages]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return python


def version_of(name: str) -> str:
    """Return the version of a peer that is installed."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    command = [python_of(name), "-c", code, name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def program(name: str, mode: str, dsn: str, count: int) -> list[str]:
    """Return the command of a peer's program."""
    script = Path(__file__).parent / "peers" / f"{name}_program.py"
    return [python_of(name), str(script), mode, url_of(dsn), str(count)]


def url_of(dsn: str) -> str:
    """Return a DSN as the URL that all of them read."""
    given = conninfo_to_dict(dsn)
    place = f"host={given['host']}&port={given.get('port', 5432)}"
    return f"postgresql://{given['user']}@/{given['dbname']}?{place}"


@contextlib.contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """Make a database, yield its DSN and drop it."""
    identifier = sql.Identifier(f"versus_{name}")
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield make_conninfo(dsn, dbname=f"versus_{name}")
        finally:
            connection.execute(drop)


def measure_peer(name: str, dsn: str, runs: int, latencies: int, figures: Figures) -> None:
    """Drain a queue with a peer, and then begin one run after the other."""
    peer = PEERS[name]
    fill = program(name, "fill", dsn, runs)
    subprocess.run(fill, check=True, timeout=GIVE_UP_S, capture_output=True)
    worker = subprocess.Popen(
        program(name, "work", dsn, peer.work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        figures.per_s.append(drained_per_s(dsn, peer.left, runs))
        asked = subprocess.run(
            program(name, "latency", dsn, latencies),
            check=True,
            timeout=GIVE_UP_S,
            capture_output=True,
            text=True,
        )
        figures.latencies_ms += json.loads(asked.stdout.splitlines()[-1])
    finally:
        worker.kill()
        worker.wait()


def drained_per_s(dsn: str, left: str, runs: int) -> float:
    """Watch a queue until it is empty; the start of the worker does not count."""
    give_up_s, pause = monotonic() + GIVE_UP_S, StopSignal()
    first: tuple[float, int] | None = None
    count = runs
    with psycopg.connect(dsn, autocommit=True) as connection:
        while monotonic() < give_up_s:
            row = connection.execute(left.encode()).fetchone()
            assert row is not None
            now_s, count = monotonic(), int(row[0])
            if first is None and count < runs:
                first = (now_s, count)
            if count == 0 and first is not None and now_s > first[0]:
                return first[1] / (now_s - first[0])
            pause.wait(0.02)
    raise TimeoutError(f"{count} of {runs} are left after {GIVE_UP_S} s")


def measure(names: list[str], repeat: int, scale: float) -> tuple[str, dict[str, Figures]]:
    """Measure all contenders in turn, so often."""
    figures = {"pgbench": Figures("one transaction per run: select, insert, update; 8 clients")}
    figures["flows"] = Figures("durable workflows with memoized steps")
    figures |= {f"{name} {version_of(name)}": Figures(PEERS[name].does) for name in names}
    with arena() as dsn:
        machine = describe_machine(dsn)
        for _ in range(repeat):
            with database(dsn, "flows") as own:
                raw = one_transaction_per_run(own, 8, int(20_000 * scale))
                figures["pgbench"].per_s.append(raw)
                figures["flows"].per_s.append(drain(own, int(40_000 * scale), CONCURRENCY))
                figures["flows"].latencies_ms += latencies_ms(own, int(300 * scale))
            for name, own_figures in zip(names, list(figures.values())[2:], strict=True):
                with database(dsn, name) as other:
                    try:
                        runs = int(PEERS[name].runs * scale)
                        measure_peer(name, other, runs, int(100 * scale), own_figures)
                    except (subprocess.SubprocessError, TimeoutError, psycopg.Error) as error:
                        own_figures.error = f"{type(error).__name__}: {error}"[:200]
    return machine, figures


def table(machine: str, figures: dict[str, Figures]) -> str:
    """Return the figures as Markdown: medians, with the smallest and the largest."""
    lines = [
        machine,
        "",
        "| | runs/s | flows is | p50 ms | p99 ms | what it does for a run |",
        "|---|---|---|---|---|---|",
    ]
    ours = statistics.median(figures["flows"].per_s)
    for name, each in figures.items():
        if each.error or not each.per_s:
            lines.append(f"| {name} | failed | | | | {each.error} |")
            continue
        middle = statistics.median(each.per_s)
        rate = f"{middle:,.0f} ({min(each.per_s):,.0f} to {max(each.per_s):,.0f})"
        times = f"{ours / middle:.1f} times" if name != "flows" else ""
        p50 = p99 = ""
        if len(each.latencies_ms) > 1:
            cuts = statistics.quantiles(each.latencies_ms, n=100, method="inclusive")
            p50, p99 = f"{cuts[49]:.1f}", f"{cuts[98]:.1f}"
        lines.append(f"| {name} | {rate} | {times} | {p50} | {p99} | {each.does} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print the table and write it where asked."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", default=",".join(PEERS), help="by commas; none for no peer")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="of the numbers of runs")
    options.add_argument("--write", type=Path, help="where the table is written besides")
    chosen = options.parse_args()
    names = [] if chosen.peers == "none" else chosen.peers.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        options.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    text = table(*measure(names, chosen.repeat, chosen.scale))
    sys.stdout.write(text)
    if chosen.write is not None:
        chosen.write.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
