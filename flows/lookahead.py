"""How many runs to claim: enough for the executors, none that others could do sooner."""

from __future__ import annotations

import math

__all__ = ["PATIENCE_S", "LookAhead"]

HORIZON_S = 0.1
PATIENCE_S = 4 * HORIZON_S
"""What has waited for an executor so much longer than it was claimed ahead for is given back: the
rate was of the past, and another process may be free."""

MAX_AHEAD = 1000
SMOOTHING = 0.3


class LookAhead:
    """Sizes claims by the measured rate: about 100 ms of work waits beside the executors.

    Runs without work are so claimed by the hundred, and long ones one at a time, which leaves the
    rest to other processes. What finishes tells the rate, and so does what does not: executors that
    have all been busy for a second do no more than one run a second each, for now.

    Pure: the time comes as an argument, in seconds of a monotonic clock.
    """

    def __init__(self, inherited: float = 0.0, executors: int = 1) -> None:
        """Begin with a rate of zero: the first claim fills the executors and no more.

        Args:
            inherited: the rate of the process that this one replaces, which counts from the first
                claim that finds runs. That one may be of suspects, each of which runs alone.
            executors: how many there are.
        """
        self._rate = 0.0
        self._executors = executors
        self._most = math.inf
        self._inherited = inherited if 0.0 <= inherited < math.inf else 0.0
        self._since_s: float | None = None
        self._finished = 0

    def observe(
        self,
        now_s: float,
        finished: int,
        *,
        was_busy: bool,
        busy_since_s: float | None = None,
    ) -> None:
        """Take in how many attempts have finished in all, and for how long none has.

        Args:
            now_s: the time.
            finished: attempts finished so far, growing.
            was_busy: whether work was waiting all the time since the last call; a rate measured
                while executors starved would say what is offered, not what they can do.
            busy_since_s: since when all executors have been busy with the same runs, if they are.
        """
        self._most = math.inf
        if busy_since_s is not None and now_s - busy_since_s > HORIZON_S:
            # Shorter pauses come from the threads' taking turns.
            self._most = self._executors / (now_s - busy_since_s)
        if self._since_s is None or now_s <= self._since_s:
            self._since_s, self._finished = now_s, finished
            return
        elapsed = now_s - self._since_s
        if elapsed < HORIZON_S / 20:
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

    def begin_anew(self) -> None:
        """What was claimed waits far too long: claim none ahead until a rate is measured again."""
        self._rate, self._since_s = 0.0, None

    @property
    def ahead(self) -> int:
        """How many claimed runs should wait for an executor."""
        return min(MAX_AHEAD, math.floor(min(self._rate, self._most) * HORIZON_S))

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
