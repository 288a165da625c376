"""The server goes away under a working worker, and comes back."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Context, Registry, RunKey, embedded, migrate
from tests.embedded_processes import project, server_pid
from tests.running import Gate, Runs
from tests.waiting import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNS = 30


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with project() as home:
        with embedded.start(home, keep=True) as server, psycopg.connect(server.dsn) as connection:
            migrate(connection)
        yield home


def stop_fast(home: Path) -> None:
    """Stop the server as an administrator does: sessions are told, and rolled back."""
    embedded.stop(home)


def stop_immediately(home: Path) -> None:
    """Stop the server as a power cut does: it recovers from its log when it is started again."""
    pid = server_pid(home)
    os.kill(pid, signal.SIGQUIT)
    wait_until_gone(pid, what="the server")


@pytest.mark.parametrize("stop", [stop_fast, stop_immediately])
def test_a_worker_outlives_its_server(home: Path, stop: Callable[[Path], None]) -> None:
    with embedded.start(home, keep=True) as server:
        dsn = server.dsn
    runs = Runs(dsn)
    runs.connection.execute("DROP TABLE IF EXISTS ledger")
    runs.connection.execute("CREATE TABLE ledger (entry int)")
    runs.connection.execute("TRUNCATE flows.runs CASCADE")
    registry = Registry()
    gate = Gate()

    def booking(wf: Context, number: int) -> None:
        wf.tx.execute("INSERT INTO ledger VALUES (%s)", (number,))

    @registry.workflow("booker", concurrency=6)
    def booker(wf: Context, number: int) -> int:
        if number % 3:
            booking(wf, number)
        gate.pass_through()
        if number % 3 == 2:
            wf.sleep("nap/v1", timedelta(milliseconds=1))
        if number % 3 == 0:
            wf.execute("book/v1", lambda: booking(wf, number))
        return number

    with runs.connection.transaction():
        keys = runs.client.begin_many_tx(runs.connection, booker, range(RUNS))
    running = runs.start(registry)
    try:
        for _ in range(6):
            gate.wait_for_arrival()
        stop(home)
        gate.open()
        with embedded.start(home, keep=True) as server:
            assert server.dsn == dsn
        check_all_are_booked(dsn, keys)
    finally:
        gate.open()
        running.stop()
        runs.close()


def check_all_are_booked(dsn: str, keys: list[RunKey]) -> None:
    """Wait until all runs are completed, each at its first attempt, and look at their rows."""
    runs = Runs(dsn)
    for number, key in enumerate(keys):
        assert runs.wait_for(key, "completed").attempts == 0
        assert runs.output(key) == number
    booked = [entry for (entry,) in runs.rows("SELECT entry FROM ledger ORDER BY entry")]
    runs.close()
    # Those that slept had committed with the sleep, and wrote again when they awoke.
    assert booked == sorted([*range(RUNS), *range(2, RUNS, 3)])
