"""Waits for a generation, and tells every few seconds how far it is."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flows.clock import StopSignal, monotonic

from .load import PROGRAM
from .tables import Counts, GenerationTables

__all__ = ["Progress", "finished", "wait"]

OVER = ("completed", "failed", "cancelled", "missing")
"""What does not change any more."""

_SHORTEST_S = 0.1
_SHARE = 5
"""Counting may take a sixth of the time, so that it does not slow down what it counts much."""


class Progress:
    """Tells how far something is, at most once in an interval."""

    def __init__(self, tell: Callable[[str], None], interval_s: float) -> None:
        """Prepare to tell; the first line comes after an interval."""
        self._tell = tell
        self._interval_s = interval_s
        self._began_s = self._told_s = monotonic()
        self._done = 0

    @property
    def elapsed_s(self) -> float:
        """How long it has been going on."""
        return monotonic() - self._began_s

    def report(self, done: int, total: int, what: str, details: str = "") -> None:
        """Say that so many of a total are done, with the rate since the last line, if it is time.

        Args:
            done: how many are done.
            total: of how many.
            what: what they are, as in "begun".
            details: what else there is to say.
        """
        since_s = monotonic() - self._told_s
        if since_s < self._interval_s:
            return
        rate = (done - self._done) / since_s if since_s else 0.0
        self._tell(f"{self.elapsed_s:5.0f} s: {done:,} of {total:,} {what}, {rate:,.0f}/s{details}")
        self._told_s += since_s
        self._done = done


def wait(
    tables: GenerationTables, generation: uuid.UUID, progress: Progress, timeout_s: float
) -> Counts:
    """Wait until every run of a generation is over, or the time is, and return the last count."""
    pause = StopSignal()
    while True:
        asked_s = monotonic()
        counts = tables.count(generation)
        took_s = monotonic() - asked_s
        total, over = _sum(counts), finished(counts)
        remaining_s = timeout_s - progress.elapsed_s
        if over == total or remaining_s <= 0:
            return counts
        progress.report(over, total, "done", _details(counts))
        pause.wait(min(remaining_s, max(_SHORTEST_S, took_s * _SHARE)))


def finished(counts: Counts) -> int:
    """Return how many runs are over, however they ended."""
    return sum(
        count
        for statuses in counts.values()
        for status, count in statuses.items()
        if status in OVER
    )


def _sum(counts: Counts) -> int:
    return sum(count for statuses in counts.values() for count in statuses.values())


def _details(counts: Counts) -> str:
    """Return how many are left of each workflow, and what went wrong so far."""
    left = {
        workflow: sum(count for status, count in statuses.items() if status not in OVER)
        for workflow, statuses in sorted(counts.items())
    }
    told = [f"{workflow} {count:,}" for workflow, count in left.items() if count]
    wrong = [
        f"{count:,} {status}"
        for status in OVER[1:]
        if (count := sum(statuses.get(status, 0) for statuses in counts.values()))
    ]
    is_untouched = all(set(statuses) == {"queued"} for statuses in counts.values())
    hint = f"; no worker has taken one yet, see: {PROGRAM} --help" if is_untouched else ""
    return "; left: " + ", ".join(told) + "".join(f"; {text}" for text in wrong) + hint
