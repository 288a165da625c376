"""The output of children as the supervisor reads it: whole lines, each told of its process."""

from __future__ import annotations

import os

__all__ = ["ChildOutput", "LineSplitter"]

_LONGEST_LINE = 1 << 16
"""Characters of a line; a longer one is broken into several."""

_READ_BYTES = 1 << 16
_MOST_READS = 16
"""Of one child at a time, so that one that prints without end does not keep the others waiting."""


class LineSplitter:
    """Makes lines of pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are whole now, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest[:_LONGEST_LINE])
            self._rest = self._rest[_LONGEST_LINE:]
        return [text for line in lines for text in _decode(line)]

    def finish(self) -> list[str]:
        """Return what is left when nothing more will come."""
        rest, self._rest = self._rest, b""
        return _decode(rest) if rest else []


def _decode(line: bytes) -> list[str]:
    text = line.decode(errors="backslashreplace").removesuffix("\r")
    # What a progress bar writes over itself are lines, too.
    return text.split("\r") if "\r" in text else [text]


class ChildOutput:
    """The supervisor's end of the pipe that a child writes to.

    Attributes:
        is_open: whether more may come.
    """

    def __init__(self, fd: int) -> None:
        """Take over the reading end of a pipe."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._lines = LineSplitter()
        self.is_open = True

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._fd

    def read(self) -> list[str]:
        """Return the lines that have come, as far as they are whole."""
        lines: list[str] = []
        for _ in range(_MOST_READS):
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self.is_open = False
                break
            lines += self._lines.feed(data)
        return lines

    def finish(self) -> list[str]:
        """Return what is there of a dead child, the last unfinished line included."""
        return [*self.read(), *self._lines.finish()]

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)
