"""Waits of the tests: for a named state and with a deadline, never for a length of time."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, TypeVar

import psycopg

from flows import clock
from tests import citus

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEADLINE_S",
    "process_exists",
    "read_line",
    "wait_for_lock_wait",
    "wait_until",
    "wait_until_gone",
]

T = TypeVar("T")

_POLL_S = 0.005

DEADLINE_S = 60.0
"""Seconds after which a test gives up on a state, also on a machine that is busy with other things.

What has to be quicker than something else is shown by what was done, never by this."""


def wait_until(predicate: Callable[[], T], *, what: str, timeout_s: float = DEADLINE_S) -> T:
    """Poll `predicate` until it returns something true, and return that.

    Args:
        what: the state that is waited for, as in "the run is completed".
    """
    deadline = clock.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = predicate()
        if value:
            return value
        if clock.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not: {what} (last seen: {value!r})")
        pause.wait(_POLL_S)


def read_line(fd: int, *, what: str, timeout_s: float = DEADLINE_S) -> str:
    """Return the next line of a pipe: the hand-shake with a process.

    Args:
        what: what the line says, as in "the child has claimed its run".
    """
    deadline = clock.monotonic() + timeout_s
    received = bytearray()
    while not received.endswith(b"\n"):
        remaining_s = max(0.0, deadline - clock.monotonic())
        if not select.select([fd], [], [], remaining_s)[0]:
            raise AssertionError(f"after {timeout_s:g} s still not: {what} (read: {received!r})")
        byte = os.read(fd, 1)
        if not byte:
            raise AssertionError(f"the other end closed before: {what} (read: {received!r})")
        received += byte
    return received.decode().rstrip("\n")


def wait_for_lock_wait(dsn: str, *, count: int = 1, timeout_s: float = DEADLINE_S) -> None:
    """Wait until `count` sessions of the database wait for a lock."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    if citus.given_dsn() is not None:
        statement = f"SELECT ({statement}) + (SELECT count(*) FROM citus_lock_waits)"
    with psycopg.connect(dsn, autocommit=True) as connection:

        def waiting() -> bool:
            row = connection.execute(statement.encode()).fetchone()
            return row is not None and row[0] >= count

        wait_until(waiting, what=f"{count} sessions wait for a lock", timeout_s=timeout_s)


def process_exists(pid: int) -> bool:
    """Tell whether a process is there; a zombie, which only waits to be reaped, is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # No /proc on this platform, or gone since.
        return os.path.isdir("/proc/self") is False  # noqa: PTH112


def wait_until_gone(pid: int, *, what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until a process, not necessarily a child of ours, has ended."""
    wait_until(lambda: not process_exists(pid), what=f"{what} is gone", timeout_s=timeout_s)
