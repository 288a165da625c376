"""This machine's clock: it measures and waits, and never decides what is stored.

What is stored is decided by the database's clock; durations travel to it, not instants.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from datetime import timedelta

__all__ = [
    "LONGEST",
    "LONGEST_WAIT_S",
    "StopSignal",
    "WakeUp",
    "monotonic",
    "process_time",
    "seconds",
    "unix_ms",
]

monotonic = time.monotonic
process_time = time.process_time

LONGEST = timedelta(days=365_250)
"""A thousand years: the longest duration that may be asked for. PostgreSQL cannot keep every sum of
an instant and a `timedelta`, and Python even fewer."""

LONGEST_WAIT_S = threading.TIMEOUT_MAX / 2
"""Longer waits for a lock, an event or a thread end with an OverflowError: a century and a half."""

_A_DAY_S = 86_400.0


def unix_ms() -> int:
    """Return milliseconds since 1970, for the time part of a UUIDv7 and nothing else."""
    return time.time_ns() // 1_000_000


def seconds(duration: timedelta) -> float:
    """Return a duration in seconds."""
    return duration / timedelta(seconds=1)


StopSignal = threading.Event
"""What a wait of this machine's clock is made on: `StopSignal().wait(seconds)`."""


class WakeUp:
    """A latch that ends a wait on file descriptors: `set()` from any thread, `wait()` in one.

    A set while nobody waits is kept for the next wait, so a wake-up is never lost between
    looking at the state and going to sleep.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._lock = threading.Lock()
        self._is_set = False

    def set(self) -> None:
        """End the present wait, or the next one."""
        with self._lock:
            if not self._is_set and self._write_fd >= 0:
                self._is_set = True
                os.write(self._write_fd, b"\0")

    def wait(self, timeout_s: float | None, *fds: int) -> bool:
        """Wait for `set()`, for one of `fds` to become readable, or for the timeout.

        The wait ends after a day at the latest, whatever the timeout.

        Returns:
            True if one of `fds` is readable.
        """
        # poll, because select refuses descriptors from 1024 on.
        poll = select.poll()
        for fd in (self._read_fd, *fds):
            poll.register(fd, select.POLLIN)
        timeout_ms = None if timeout_s is None else math.ceil(min(timeout_s, _A_DAY_S) * 1000)
        ready = {fd for fd, _ in poll.poll(timeout_ms)}
        if self._read_fd in ready:
            with self._lock:
                self._is_set = False
                os.read(self._read_fd, 16)
        return not ready.isdisjoint(fds)

    def close(self) -> None:
        """Release the descriptors; a later `set()` does nothing."""
        with self._lock:
            os.close(self._read_fd)
            os.close(self._write_fd)
            self._read_fd = self._write_fd = -1
