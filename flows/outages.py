"""What a thread says while it cannot do its work, and when it can again.

It tries again every few seconds at most, for as long as it takes: to say so each time would fill
the log, and bury what else stands there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.clock import monotonic
from flows.failures import first_line

if TYPE_CHECKING:
    import logging

__all__ = ["Outage", "OutageLog"]

REMIND_S = 60.0
"""How often to say that it lasts."""

APART_S = 5.0
"""An outage that begins sooner after the one before is not told at once: it may come and go."""


class Outage:
    """Tells what is news of failures and successes, given the moments of both.

    Attributes:
        since_s: when it began, None while there is none.
    """

    def __init__(self) -> None:
        self.since_s: float | None = None
        self._over_s: float | None = None
        self._told_s: float | None = None

    def failed(self, now_s: float) -> bool:
        """Record a failure; return whether it is to be told: the first one, then one a minute."""
        is_new = self.since_s is None and (self._over_s is None or now_s - self._over_s >= APART_S)
        if self.since_s is None:
            self.since_s = now_s
        if not is_new and self._told_s is not None and now_s - self._told_s < REMIND_S:
            return False
        self._told_s = now_s
        return True

    def worked(self, now_s: float) -> float | None:
        """Record a success; return how long the outage was that it ends, if that was told."""
        since_s, self.since_s = self.since_s, None
        if since_s is None:
            return None
        self._over_s = now_s
        return now_s - since_s if self._told_s is not None and self._told_s >= since_s else None


class OutageLog:
    """Logs the outages of one thread, which alone calls it."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        """Prepare to log.

        Args:
            logger: where to.
            what: the thread cannot do during an outage, as in "claim".
        """
        self._logger = logger
        self._what = what
        self._outage = Outage()

    def failed(self, error: BaseException, *, foreseen: bool = True) -> None:
        """It did not work; with its traceback where that is a defect and not an outage."""
        if not self._outage.failed(monotonic()):
            return
        if foreseen:
            self._logger.warning("cannot %s, trying again: %s", self._what, first_line(error))
        else:
            self._logger.error("cannot %s, trying again", self._what, exc_info=error)

    def worked(self) -> None:
        """It worked."""
        if self._outage.since_s is None:
            return
        lasted_s = self._outage.worked(monotonic())
        if lasted_s is not None:
            self._logger.warning("can %s again, after %.1f s", self._what, lasted_s)
