"""Turns: which of a workflow's shards to look at next, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ShardTurns"]


class ShardTurns:
    """Knows which shards may have due runs, and whose turn it is.

    A shard is looked at after something was told of it, when its next sleeping run is due, and
    with all others when it is time to poll. One that a claim has not exhausted goes behind the
    others, so that a flood in one starves none. Pure: times come as arguments, in seconds of a
    monotonic clock.

    Attributes:
        shards: all of them.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        """Begin with every shard to be looked at."""
        self.shards = tuple(shards)
        self._told: dict[str, None] = {}
        self._suspected = dict.fromkeys(self.shards)
        self._due_at_s: dict[str, float] = {}
        self.was_full = False

    @property
    def may_have_due(self) -> bool:
        """Whether a look may find something."""
        return bool(self._told or self._suspected)

    @property
    def due_at_s(self) -> float | None:
        """When the next sleeping run known of is due."""
        return min(self._due_at_s.values(), default=None)

    def tell(self, shard: str) -> None:
        """A run of this shard may be due; called from any thread."""
        self._told[shard] = None

    def suspect_all(self) -> None:
        """Any shard may have due runs."""
        for shard in self.shards:
            self._suspected.setdefault(shard)

    def come_due(self, now_s: float) -> None:
        """Take in that time has passed."""
        for shard, due_at_s in self._due_at_s.items():
            if due_at_s <= now_s:
                self._suspected.setdefault(shard)

    def in_turn(self) -> list[str]:
        """Return the shards to look at: those told of first, then the others in their turn.

        While claims come back full there is no such precedence: a shard that is told of all the
        time would keep it for ever.
        """
        told = list(self._told)
        for shard in told:
            del self._told[shard]
        first = [] if self.was_full else told
        order = dict.fromkeys([*first, *self._suspected, *told])
        self._suspected = order
        return list(order)

    def looked(self, next_due_s: Mapping[str, float | None], now_s: float, *, full: bool) -> None:
        """Take in what a claim has found.

        Args:
            next_due_s: the shards that have no due run left, and in how many seconds their next
                sleeping one is due, None if none is.
            now_s: the time.
            full: whether the claim got all it asked for.
        """
        self.was_full = full
        for shard, due_s in next_due_s.items():
            del self._suspected[shard]
            self._due_at_s.pop(shard, None)
            if due_s is not None:
                self._due_at_s[shard] = now_s + max(0.0, due_s)
        if full and self._suspected:
            # The claim ended in the first of those that are left.
            shard = next(iter(self._suspected))
            del self._suspected[shard]
            self._suspected[shard] = None
