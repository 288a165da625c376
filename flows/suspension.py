"""How an attempt leaves its workflow function before the function returns.

All of these derive from `Suspend`, a `BaseException`, so that `except Exception` in user code
cannot swallow them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.errors import Suspend

if TYPE_CHECKING:
    from flows.errors import RunTimeoutError
    from flows.records import Outcome

__all__ = [
    "Cancelled",
    "ClaimLost",
    "GivenUp",
    "Interrupted",
    "Overdue",
    "TimeUp",
    "Yielded",
]


class Yielded(Suspend):
    """The run sleeps or waits for an event.

    Attributes:
        outcome: what to record.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Interrupted(Suspend):
    """The attempt cannot go on for a reason that is not the run's: it goes back to the queue."""


class ClaimLost(Suspend):
    """Another worker has taken the run: nothing of this attempt may be recorded any more."""


class TimeUp(Suspend):
    """Raised in user code that must end now, wherever it is."""


class Cancelled(Suspend):
    """Somebody has asked for the run to be cancelled."""


class Overdue(Suspend):
    """The run is past its deadline.

    Attributes:
        error: what it fails with.
    """

    def __init__(self, error: RunTimeoutError) -> None:
        super().__init__(error)
        self.error = error


class GivenUp(Suspend):
    """The attempt was ended from outside while its thread was stuck: nothing of it counts."""
