"""Heads: where the queue of a shard begins, for claims that follow each other at once.

While any session holds a snapshot, the index keeps an entry of each run that was claimed since, and
a claim that begins with the oldest walks over all of them: 40 ms after 500,000 runs. So it begins
where the one before it has ended.
"""

from __future__ import annotations

__all__ = ["Heads"]

MANY = 50
"""A claim of fewer runs is no flood, and looks at the whole queue."""

WHOLE_S = 1.0
"""How often the whole queue is looked at all the same: what is put back is older than the head, and
so is what was begun in a transaction that has taken long to commit. So much longer it may wait."""

MARGIN_S = 0.1
"""What is so little older than the head is not passed over."""


class Heads:
    """Remembers for each shard when what it has claimed last was due.

    Pure: `now_s` is of a monotonic clock, `due_s` the seconds since 1970 by the database's.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._from_s: dict[str, float] = {}
        self._whole_at_s: dict[str, float] = {}

    def begin(self, shard: str, wanted: int, now_s: float) -> float | None:
        """Return from when on a claim of so many runs should look, None for the whole queue."""
        from_s = self._from_s.get(shard)
        if from_s is None or wanted < MANY or now_s >= self._whole_at_s[shard]:
            self._whole_at_s[shard] = now_s + WHOLE_S
            return None
        return from_s

    def forget(self, shard: str) -> None:
        """A run that may be older than the head is due again, as when it has its event."""
        self._from_s.pop(shard, None)

    def claimed(self, shard: str, due_s: float | None, *, is_full: bool) -> None:
        """Take in a claim.

        Args:
            shard: where.
            due_s: when the last of its runs was due, None if it has none of the ordinary ones.
            is_full: whether it got all it wanted; if not, nothing is left behind it.
        """
        if not is_full:
            self.forget(shard)
        elif due_s is not None:
            self._from_s[shard] = due_s - MARGIN_S
