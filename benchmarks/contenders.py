"""The peers: each from PyPI in an environment of its own, measured at the same work."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.clock import StopSignal, monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PEERS", "Peer", "database", "peer_latencies_ms", "peer_per_s", "version_of"]

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flows-benchmarks"
CONCURRENCY = 10
GIVE_UP_S = 90


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
        1500,
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
    "absurd-sdk": Peer(
        ("absurd-sdk", "absurdctl", "psycopg[binary]"),
        2000,
        "SELECT count(*) FROM absurd.t_default WHERE state <> 'completed'",
        CONCURRENCY,
        "durable tasks with checkpointed steps, polling every 5 ms",
    ),
    "dbos": Peer(
        ("dbos", "psycopg[binary]"),
        600,
        "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')",
        CONCURRENCY,
        "durable workflows with memoized steps, polling its queue every 10 ms",
    ),
}


def python_of(name: str) -> str:
    """Return the Python of a peer's environment, which is made if need be."""
    folder = HOME / name
    python = str(folder / "bin" / "python")
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", *PEERS[name].packages]
        subprocess.run(install, check=True, timeout=300, capture_output=True)
        (folder / "complete").touch()
    return python


def version_of(name: str) -> str:
    """Return the version of a peer that is installed."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    command = [python_of(name), "-c", code, name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def program(name: str, mode: str, dsn: str, count: int) -> list[str]:
    """Return the command of a peer's program."""
    script = Path(__file__).parent / "peers" / f"{name.removesuffix('-sdk')}_program.py"
    return [python_of(name), str(script), mode, url_of(dsn), str(count)]


def url_of(dsn: str) -> str:
    """Return a DSN as the URL that all of them read."""
    given = conninfo_to_dict(dsn)
    place = f"host={given['host']}&port={given.get('port', 5432)}"
    return f"postgresql://{given['user']}@/{given['dbname']}?{place}"


@contextlib.contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """Make a database, yield its DSN and drop it."""
    identifier = sql.Identifier(f"bench_{name}")
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield make_conninfo(dsn, dbname=f"bench_{name}")
        finally:
            connection.execute(drop)


def peer_per_s(name: str, dsn: str, scale: float) -> float:
    """Drain a queue with one worker process of a peer and return the runs per second."""
    runs = int(PEERS[name].runs * scale)
    with _working(name, dsn, runs):
        return drained_per_s(dsn, PEERS[name].left, runs)


def peer_latencies_ms(name: str, dsn: str, runs: int) -> list[float]:
    """Have an idle worker of a peer execute one run after the other."""
    with _working(name, dsn, 0):
        done = subprocess.run(
            program(name, "latency", dsn, runs),
            check=True,
            timeout=GIVE_UP_S,
            capture_output=True,
            text=True,
        )
    return [float(each) for each in json.loads(done.stdout.splitlines()[-1])]


@contextlib.contextmanager
def _working(name: str, dsn: str, runs: int) -> Iterator[None]:
    fill = program(name, "fill", dsn, runs)
    subprocess.run(fill, check=True, timeout=GIVE_UP_S, capture_output=True)
    worker = subprocess.Popen(
        program(name, "work", dsn, PEERS[name].work),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.kill()
        worker.wait()


def drained_per_s(dsn: str, left: str, runs: int) -> float:
    """Watch a queue until it is empty; the start of the worker does not count.

    A look takes time that the worker could use: the next one is half-way to the expected end.
    """
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
            left_s = 0.0
            if first is not None and count < first[1]:
                left_s = count * (now_s - first[0]) / (first[1] - count)
            pause.wait(min(1.0, max(0.02, left_s / 2)))
    raise TimeoutError(f"{count} of {runs} are left after {GIVE_UP_S} s")
