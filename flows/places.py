"""Places: in which order the code of a run comes to its steps, waits and random values.

Each memo is stored with its place. Times do not tell the order: memos are made at one time and
written at another, many at once, on two connections whose statements take unlike long.

At every attempt the code begins at the top. What has a memo keeps its place; what is made now comes
behind the last one that the code came to. It also comes before those that the code has still to
come to, which have places already where the code was changed under the run, or where a step failed
and is executed again: so there is room between two places.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GAP", "MemoKind", "Places"]

MemoKind = Literal["step", "wait", "random"]

GAP = 1000
"""From one place to the next: how many can be put between two, one after the other."""


class Places:
    """Counts the places of one attempt, which come to it in rising order."""

    def __init__(self, known: Mapping[tuple[MemoKind, str], int]) -> None:
        """Begin at the top.

        Args:
            known: places of memos from earlier attempts, by kind and key.
        """
        self._known = known
        self._sorted: list[int] | None = None
        self._here = 0

    def pass_by(self, kind: MemoKind, key: str) -> None:
        """The code has come to something that has its memo."""
        self._here = max(self._here, self._known.get((kind, key), 0))

    def take(self, kind: MemoKind, key: str) -> int:
        """Return the place of a memo that is to be made; that of an open wait is its own."""
        own = self._known.get((kind, key), 0)
        self._here = own if own > self._here else self._next()
        return self._here

    def _next(self) -> int:
        roomy = self._here - self._here % GAP + GAP
        if not self._known:
            return roomy
        if self._sorted is None:
            self._sorted = sorted(self._known.values())
        following = bisect_right(self._sorted, self._here)
        if following == len(self._sorted) or roomy < self._sorted[following]:
            return roomy
        return self._here + 1
