"""What every benchmark needs: a PostgreSQL of its own, a worker process, and medians."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import flows
from flows import embedded
from flows.clock import StopSignal, monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["arena", "describe_machine", "fresh_schema", "spread", "wait_until", "worker_process"]


@contextlib.contextmanager
def arena() -> Iterator[str]:
    """Run a PostgreSQL with its default settings (fsync on) and yield its DSN.

    `FLOWS_BENCH_DSN` names another database, whose schema `flows` is then dropped and made anew.
    """
    named = os.environ.get("FLOWS_BENCH_DSN")
    if named:
        yield named
        return
    home = Path(tempfile.gettempdir()) / f"flows-bench-{os.getpid()}"
    with embedded.start(home, throwaway=True) as server:
        try:
            yield server.dsn
        finally:
            embedded.stop(home)


def fresh_schema(dsn: str) -> None:
    """Drop the tables of flows and make them anew."""
    with psycopg.connect(dsn) as connection:
        connection.execute("DROP SCHEMA IF EXISTS flows CASCADE")
        flows.migrate(connection)


@contextlib.contextmanager
def worker_process(target: str, dsn: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m TARGET DSN …`, a worker that prints `ready`, and stop it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", target, dsn, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line.strip() != "ready":
            raise SystemExit(f"the worker process did not start: {line!r}")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until(
    predicate: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.02
) -> None:
    """Ask again and again until it holds; a benchmark that waits too long ends."""
    deadline = monotonic() + timeout_s
    pause = StopSignal()
    while not predicate():
        if monotonic() > deadline:
            raise SystemExit(f"gave up waiting for {what}")
        pause.wait(every_s)


def spread(values: list[float], unit: str = "") -> str:
    """Return median, smallest and largest as text."""
    middle = statistics.median(values)
    return f"{middle:,.1f}{unit} ({min(values):,.1f} to {max(values):,.1f})"


def describe_machine(dsn: str) -> str:
    """Return cores, versions and the settings that decide durability."""
    with psycopg.connect(dsn) as connection:
        facts: list[Any] = []
        for name in ("server_version", "fsync", "synchronous_commit"):
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            facts.append(row[0] if row else "?")
    version, fsync, commit = facts
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" PostgreSQL {version}, fsync {fsync}, synchronous_commit {commit}"
    )
