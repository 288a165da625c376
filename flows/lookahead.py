"""How many runs to claim: enough for the executors, none that others could do sooner."""

from __future__ import annotations

import math

__all__ = ["LookAhead"]

HORIZON_S = 0.05
MAX_AHEAD = 1000
SMOOTHING = 0.3


class LookAhead:
    """Sizes claims by the measured rate: about 50 ms of work waits beside the executors.

    Runs without work are so claimed by the hundred, and long ones one at a time, which leaves the
    rest to other processes. Pure: the time comes as an argument, in seconds of a monotonic clock.
    """

    def __init__(self, inherited: float = 0.0) -> None:
        """Begin with a rate of zero: the first claim fills the executors and no more.

        Args:
            inherited: the rate of the process that this one replaces, which counts from the first
                claim that finds runs. That one may be of suspects, each of which runs alone.
        """
        self._rate = 0.0
        self._inherited = inherited if 0.0 <= inherited < math.inf else 0.0
        self._since_s: float | None = None
        self._finished = 0

    def observe(self, now_s: float, finished: int, *, was_busy: bool) -> None:
        """Take in how many attempts have finished in all.

        Args:
            now_s: the time.
            finished: attempts finished so far, growing.
            was_busy: whether work was waiting all the time since the last call; a rate measured
                while executors starved would say what is offered, not what they can do.
        """
        if self._since_s is None or now_s <= self._since_s:
            self._since_s, self._finished = now_s, finished
            return
        elapsed = now_s - self._since_s
        if elapsed < HORIZON_S / 10:
            return
        rate = (finished - self._finished) / elapsed
        if was_busy or rate > self._rate:
            self._rate += SMOOTHING * (rate - self._rate)
        self._since_s, self._finished = now_s, finished

    @property
    def rate(self) -> float:
        """How many runs a second the executors can do, as far as is known."""
        return max(self._rate, self._inherited)

    def claimed(self) -> None:
        """A claim has found runs: from here on, what was inherited counts."""
        self._rate, self._inherited = self.rate, 0.0

    @property
    def ahead(self) -> int:
        """How many claimed runs should wait for an executor."""
        return min(MAX_AHEAD, math.floor(self._rate * HORIZON_S))

    def wanted(self, free: int, waiting: int) -> int:
        """Return how many runs to claim now.

        Args:
            free: executors without a run.
            waiting: claimed runs that wait for one.
        """
        return max(0, free + self.ahead - waiting)

    def should_claim(self, free: int, waiting: int) -> bool:
        """Tell whether a claim is worth its round trip: an executor starves, or half is used up."""
        wanted = self.wanted(free, waiting)
        return wanted > 0 and (waiting < free or waiting <= self.ahead // 2)
