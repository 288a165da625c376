"""How far a command has come: a line on stderr that is written over, on a terminal only."""

from __future__ import annotations

import sys
from typing import Self

from flows.clock import monotonic

__all__ = ["Progress", "line"]

_EVERY_S = 0.1
_BAR = 30


class Progress:
    """A line such as `cancelled  [####······]  1200 of 3000`, gone when it is over."""

    def __init__(self, what: str, total: int | None) -> None:
        """Begin at nothing of `total`, None where nobody knows that."""
        self._what = what
        self._total = total
        self._shown_at_s: float | None = None
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown_at_s is not None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int) -> None:
        """Show how many are done, not more than ten times a second."""
        now_s = monotonic()
        if not self._is_shown or (
            self._shown_at_s is not None and now_s - self._shown_at_s < _EVERY_S
        ):
            return
        self._shown_at_s = now_s
        sys.stderr.write(f"\r\x1b[K{line(self._what, done, self._total)}")
        sys.stderr.flush()


def line(what: str, done: int, total: int | None) -> str:
    """Return the line."""
    if not total:
        return f"{what} {done}"
    part = min(1.0, done / total)
    filled = int(part * _BAR)
    return f"{what} [{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total}"
