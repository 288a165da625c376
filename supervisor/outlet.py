"""The supervisor's stderr, which may be stuck without the supervisor being stuck with it."""

from __future__ import annotations

import os
import select
from collections import deque
from typing import TYPE_CHECKING

from flows import clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Outlet"]

_MOST_BYTES = 1 << 20
_CHUNK_BYTES = 4096
"""What a pipe or a terminal takes at once when it is ready at all."""


class Outlet:
    """A descriptor to which lines are written as far as it is ready for them.

    What it does not take is kept, up to a megabyte; further lines are dropped, and counted.
    """

    def __init__(self, fd: int, phrase: Callable[[str], str]) -> None:
        """Prepare to write to `fd`.

        Args:
            fd: the descriptor.
            phrase: makes a line of what the outlet itself has to say.
        """
        self._fd = fd
        self._phrase = phrase
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._is_gone = False

    @property
    def is_behind(self) -> bool:
        """Whether there are lines that the descriptor has not taken."""
        return bool(self._lines)

    def write(self, line: str) -> None:
        """Write a line, as soon as possible."""
        if self._is_gone:
            return
        data = line.encode(errors="backslashreplace") + b"\n"
        if self._bytes + len(data) > _MOST_BYTES:
            self._dropped += 1
        else:
            self._append(data)
        self.flush()

    def flush(self, patience_s: float = 0.0) -> None:
        """Write what is left, waiting `patience_s` at most for the descriptor to be ready."""
        deadline_s = clock.monotonic() + patience_s
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._lines:
            left_s = max(0.0, deadline_s - clock.monotonic())
            if not poll.poll(left_s * 1000):
                return
            self._write_some()

    def _append(self, data: bytes) -> None:
        if self._dropped and not self._lines:
            note = self._phrase(f"{self._dropped} lines were dropped here: nobody was reading")
            data = note.encode() + b"\n" + data
            self._dropped = 0
        self._lines.append(data)
        self._bytes += len(data)

    def _write_some(self) -> None:
        data = self._lines[0]
        try:
            written = os.write(self._fd, data[:_CHUNK_BYTES])
        except BlockingIOError:
            return
        except OSError:
            # The terminal is gone, the runs are not: nobody to tell is no reason to stop them.
            self._is_gone = True
            self._lines.clear()
            self._bytes = 0
            return
        self._bytes -= written
        if written == len(data):
            self._lines.popleft()
        else:
            self._lines[0] = data[written:]
