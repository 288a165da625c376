"""Cores: which one a pinned process keeps to.

The threads of a Python process take turns. When one hands the interpreter's lock to the next, the
kernel may put that on another core, behind the process that is busy there, while its own core has
nothing to do. Threads that may run on one core only are never moved.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["available", "keep_to", "least_used"]


def available() -> list[int]:
    """Return the numbers of the cores that this process may use; none where it cannot be told."""
    if sys.platform != "linux":
        return []
    return sorted(os.sched_getaffinity(0))


def least_used(cores: Sequence[int], taken: Iterable[int | None]) -> int | None:
    """Return the first of the cores that `taken` names least often, None if there are none."""
    uses = Counter(taken)
    return min(cores, key=lambda core: uses[core], default=None)


def keep_to(core: int) -> None:
    """Have this process, its threads to come and the programs it starts use that core only."""
    if sys.platform != "linux":
        return
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        # As when the container was given other cores meanwhile: it is slower, and works.
        logging.getLogger("flows").warning("cannot keep to core %d: %s", core, error)
