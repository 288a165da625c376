"""The disk of the server is full: runs wait for room, and all of them end as if it had not been."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Context, Registry, RunKey, migrate
from tests.crash.soak.server import POWER, Postgres
from tests.embedded_processes import needs_root
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root

DISK = "192m"
RUNS = 12
FILLER = 200_000
"""Bytes that a row takes, which cannot be compressed: more than a table has left in its pages."""

SETTINGS = {"fsync": "off", "max_wal_size": "32MB", "min_wal_size": "32MB", "autovacuum": "off"}
NO_ROOM = "No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, mounted where this is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    for parent in (tmp_path, *tmp_path.parents):
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o711)  # for the server's user
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def server(disk: Path) -> Iterator[Postgres]:
    with Postgres(disk, SETTINGS) as server:
        assert server.home.is_relative_to(disk)
        with psycopg.connect(server.dsn) as connection:
            migrate(connection)
            connection.execute("CREATE TABLE ledger (run_id uuid, entry text, filler bytea)")
            connection.execute("ALTER TABLE ledger ALTER COLUMN filler SET STORAGE EXTERNAL")
        yield server


class Booking:
    """Runs that write rows which need room, and stop at a gate before they do."""

    def __init__(self, dsn: str) -> None:
        self.gate = Gate()
        self.runs = Runs(dsn)
        self.keys: list[RunKey] = []
        self.registry = Registry()

        def book(wf: Context, entry: str) -> int:
            wf.tx.execute(
                "INSERT INTO ledger VALUES (%s, %s, %s)", (wf.run_id, entry, os.urandom(FILLER))
            )
            return FILLER

        @self.registry.workflow("booker", concurrency=4)
        def booker(wf: Context, number: int) -> int:
            wf.execute("number/v1", lambda given: given, number)
            self.gate.pass_through()
            wf.execute("first/v1", lambda: book(wf, "first"))
            return wf.execute("second/v1", lambda: book(wf, "second"))

        with self.runs.connection.transaction():
            self.keys = self.runs.client.begin_many_tx(self.runs.connection, booker, range(RUNS))
        self.running = self.runs.start(self.registry)
        for _ in range(4):
            self.gate.wait_for_arrival()

    def close(self) -> None:
        self.gate.open()
        self.running.stop()
        self.runs.close()


@pytest.fixture
def booking(server: Postgres) -> Iterator[Booking]:
    booking = Booking(server.dsn)
    yield booking
    booking.close()


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    assert shutil.disk_usage(disk).free == 0
    return filler


def check_all_are_booked(dsn: str, keys: list[RunKey]) -> None:
    """Wait until all runs are completed, at their first attempt, and count their rows."""
    runs = Runs(dsn)
    for key in keys:
        assert runs.wait_for(key, "completed").attempts == 0
    rows = runs.rows(
        "SELECT entry, count(*), count(DISTINCT run_id), sum(length(filler)) FROM ledger"
        " GROUP BY entry ORDER BY entry"
    )
    runs.close()
    assert rows == [(entry, RUNS, RUNS, RUNS * FILLER) for entry in ("first", "second")]


def test_runs_wait_for_room_on_the_disk(disk: Path, server: Postgres, booking: Booking) -> None:
    filler = fill(disk)
    booking.gate.open()
    wait_until(lambda: server.log.count(NO_ROOM) >= RUNS, what="writes were refused")
    assert booking.runs.rows("SELECT count(*) FROM flows.runs WHERE status = 'failed'") == [(0,)]
    filler.unlink()
    check_all_are_booked(server.dsn, booking.keys)


def test_a_worker_goes_on_when_the_server_has_died_for_want_of_room(
    disk: Path, server: Postgres, booking: Booking
) -> None:
    filler = fill(disk)
    exhaust_log(server)
    booking.gate.open()
    filler.unlink()
    if server.is_alive():
        # It may be recovering, or be stuck in that.
        server.stop(POWER)
    server.start()
    check_all_are_booked(server.dsn, booking.keys)


def exhaust_log(server: Postgres) -> None:
    """Write to the log of transactions until there is no room for it: the server panics."""
    message = "SELECT pg_logical_emit_message(true, 'filler', repeat('x', 1000000))"
    with (
        contextlib.suppress(psycopg.OperationalError),
        psycopg.connect(server.dsn, autocommit=True) as connection,
    ):
        for _ in range(200):
            connection.execute(message)
    wait_until(lambda: "PANIC" in server.log, what="the server has panicked")
