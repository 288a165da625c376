"""When a process is replaced before anything is wrong with it: pure policy."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.supervisor.jobs import WorkflowPlan

__all__ = ["Lifetime", "resident_bytes"]

_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long one process is kept.

    Attributes:
        max_runs: finished attempts.
        max_age_s: seconds since its start.
        max_rss: bytes of resident memory.
        shorter: the part by which age and runs are shortened, so that what was started together
            is not replaced together.
    """

    max_runs: int | None = None
    max_age_s: float | None = None
    max_rss: int | None = None
    shorter: float = field(default_factory=lambda: random.random() * _JITTER)  # noqa: S311  jitter

    @classmethod
    def of(cls, plan: WorkflowPlan) -> Lifetime | None:
        """Return how long a process of a workflow is kept; None for as long as it lives."""
        if plan.max_runs is None and plan.max_age_s is None and plan.max_rss is None:
            return None
        return cls(plan.max_runs, plan.max_age_s, plan.max_rss)

    def is_over(self, age_s: float, runs: int, rss: int | None) -> str | None:
        """Return why a process is to be replaced, None while it is not.

        Args:
            age_s: seconds since its start.
            runs: attempts that it has finished.
            rss: bytes of memory that it holds; None where the system does not tell.
        """
        part = 1.0 - self.shorter
        if self.max_runs is not None and runs >= max(1, self.max_runs * part):
            return f"has finished {runs} runs"
        if self.max_age_s is not None and age_s >= self.max_age_s * part:
            return f"is {age_s:.0f} s old"
        if self.max_rss is not None and rss is not None and rss > self.max_rss:
            return f"holds {rss / 2**20:.0f} MiB of memory"
        return None


def resident_bytes(pid: int) -> int | None:
    """Return how much memory a process holds; None where that cannot be read."""
    if sys.platform != "linux":
        return None
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        # It has died: its death is told elsewhere.
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
