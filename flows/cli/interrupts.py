"""Ctrl-C between batches: what is under way is committed, and what comes after is left."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Interruption", "interruption"]


class Interruption:
    """Whether Ctrl-C was pressed.

    Attributes:
        is_wanted: it was.
    """

    def __init__(self) -> None:
        self.is_wanted = False

    def __bool__(self) -> bool:
        return self.is_wanted


@contextlib.contextmanager
def interruption() -> Iterator[Interruption]:
    """Take note of the first Ctrl-C, or of TERM, in the block; the second ends it at once."""
    wanted = Interruption()

    def note(signum: int, _frame: FrameType | None) -> None:
        wanted.is_wanted = True
        signal.signal(signum, before[signal.Signals(signum)])

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    for signum in before:
        signal.signal(signum, note)
    try:
        yield wanted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
