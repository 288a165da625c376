"""When a dead process is replaced: pure policy, with the time as an argument."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backoff", "RestartBudget", "RestartPolicy"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How processes that die are replaced.

    Attributes:
        base_s: wait before the second restart in a row; the first one is immediate.
        maximum_s: longest wait.
        healthy_s: a process that lived this long clears the count of restarts in a row.
        budget: restarts of one workflow within `window_s`; past it the workflow is broken.
        window_s: the window of the budget.
        broken_s: how long a broken workflow is left alone before it is tried again.
    """

    base_s: float = 0.1
    maximum_s: float = 30.0
    healthy_s: float = 10.0
    budget: int = 5
    window_s: float = 60.0
    broken_s: float = 180.0


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next restart of one process.

    Attributes:
        policy: the durations.
        jitter: returns a number from 0 to 1; a wait is shortened by up to half of itself, so
            that what died together does not come back together.
    """

    policy: RestartPolicy
    jitter: Callable[[], float] = random.random
    _in_a_row: int = field(default=0, init=False)

    def next_s(self, lived_s: float) -> float:
        """Return the wait in seconds after a process that lived for `lived_s`."""
        if lived_s >= self.policy.healthy_s:
            self._in_a_row = 0
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        doublings = min(self._in_a_row - 2, 32)
        longest_s = min(self.policy.maximum_s, self.policy.base_s * (1 << doublings))
        return longest_s * (1 - self.jitter() / 2)


@dataclass(slots=True)
class RestartBudget:
    """How many restarts a workflow may have within a window of time.

    Attributes:
        policy: the budget and its window.
    """

    policy: RestartPolicy
    _spent_at: deque[float] = field(default_factory=deque, init=False)

    def spend(self, now_s: float) -> bool:
        """Spend one restart if the budget allows it, and tell whether it did."""
        while self._spent_at and self._spent_at[0] <= now_s - self.policy.window_s:
            self._spent_at.popleft()
        if len(self._spent_at) >= self.policy.budget:
            return False
        self._spent_at.append(now_s)
        return True
