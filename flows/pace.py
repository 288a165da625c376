"""How busy the interpreter is, and what had better wait then.

One more executor does no more where runs are short, and a commit takes turns from those that run.
"""

from __future__ import annotations

import math

__all__ = ["HOLD_S", "Load", "Pace"]

HOLD_S = 0.005
"""How long an executor stands by before it looks again: so much later at most begins a run that
could have begun at once."""

SHORT_S = 0.0004
"""A run that takes longer waits for something, or for its turn with the interpreter."""

MOST = 0.5
SMOOTHING = 0.02

BUSY = 0.7
"""Of a core, above which this process can hardly do more in Python: its threads take turns."""

FULL = 0.9
"""Of a core: the interpreter is never free for long."""


class Load:
    """Tells how much of a core a process uses, from one look to the next.

    Pure: the times come as arguments, in seconds.
    """

    def __init__(self) -> None:
        """Begin with a first look yet to come, which tells nothing."""
        self._looked_s, self._cpu_s = -math.inf, 0.0

    def is_full(self, now_s: float, cpu_s: float) -> bool:
        """Tell whether all of a core was used since the last look, or more.

        Args:
            now_s: the time of a monotonic clock.
            cpu_s: how much time of the processor this process has taken so far.
        """
        is_full = cpu_s - self._cpu_s >= FULL * (now_s - self._looked_s)
        self._looked_s, self._cpu_s = now_s, cpu_s
        return is_full


class Pace:
    """Judges by what has been done lately whether those that run need the help of another one.

    Threads that run Python have one interpreter's lock between them. Where runs do not wait for
    anything, a second executor does not get them done sooner: it only has the lock change hands.
    Where they do wait, this process is not busy or its runs are not short.

    Pure: the times come as arguments, in seconds.
    """

    def __init__(self) -> None:
        """Begin without a judgment: all are needed."""
        self._looked_s = self._cpu_s = 0.0
        self._is_busy = False
        self._shortness = 0.0

    def ended(self, took_s: float) -> None:
        """A run has ended that took so long."""
        self._shortness += SMOOTHING * ((took_s < SHORT_S) - self._shortness)

    def is_kept(self, now_s: float, cpu_s: float, began_s: float) -> bool:
        """Tell whether those that run keep up a pace that another one could not better.

        Args:
            now_s: the time of a monotonic clock.
            cpu_s: how much time of the processor this process has taken so far.
            began_s: when the last run was begun, by the same clock.
        """
        elapsed_s = now_s - self._looked_s
        if elapsed_s >= HOLD_S:
            self._is_busy = cpu_s - self._cpu_s >= BUSY * elapsed_s
            self._looked_s, self._cpu_s = now_s, cpu_s
        return self._is_busy and self._shortness > MOST and now_s - began_s < HOLD_S
