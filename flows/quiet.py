"""Quiet: where runs are begun in crowds, few begins tell of them or none.

PostgreSQL takes one lock for the whole database from a notification to the end of the commit, so
transactions that notify commit one after the other. Of begins that are transactions by themselves,
and so are committed at once, one of a shard tells at a time, and those that go on meanwhile ride
along with it: all but those with a key, which may wait for somebody, or with a deadline. And a
worker that is told a thousand times a second, as by longer transactions, learns nothing from it: it
looks every few milliseconds instead, until it finds few runs for a while. (Network cards and Linux
do the same with interrupts: NAPI.)

Who tells stands in advisory locks of each workflow, at which every begin looks:

    key      held by one worker that asks for quiet; where nobody does, begins tell
    key + 1  shared by the workers that want to be told; where one does, begins tell all the same
    key + 2  shared by the transactions that tell nobody; while one goes on, workers that were told
             of another look often
    of a shard, by the hash of its name and key: held by the begin that tells for others

Who may ride along takes key + 2 before it looks at the lock of the shard, and keeps it if it then
tells: whoever is told sees the runs that ride along, or that there may be some.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

__all__ = ["LOOK_S", "Quiet", "quiet_key"]

LOOK_S = 0.002
"""How often a worker looks while nobody tells it."""

WINDOW_S = 0.05
MANY = 50
"""So many notifications within the window are a crowd, if there are two of them for a look: runs
that are begun one after the other, each when the one before has ended, do better when told of."""

FEW = 10
"""A window in which fewer runs are found, and none is left, is the end of it."""

AGAIN_S = 0.05
"""How often it asks for quiet while another worker does."""

LATE_S = 0.05
"""How often a worker looks at least while runs that nobody told it of are yet to be committed."""

MOST_SHARDS = 16
"""With more a look takes so long that being told of the few shards with runs is better."""


@lru_cache(maxsize=1024)
def quiet_key(schema: str, channel: str, workflow_name: str) -> int:
    """Return the first of the three advisory locks, a bigint."""
    text = f"{schema}\0{channel}\0{workflow_name}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, signed=True) & ~3


class Quiet:
    """Decides when a worker wants to be told of begins, by what it is told and what it finds.

    Pure: times come as arguments, in seconds of a monotonic clock.

    Attributes:
        is_told: whether it is told of begins, as far as it has seen to it.
        has_asked: whether it holds the lock that asks for quiet.
    """

    def __init__(self, shards: int) -> None:
        """Begin without any lock, as one that is to be told at once, of so many shards."""
        self._may_ask = shards <= MOST_SHARDS
        self.is_told = self.has_asked = False
        self._is_left = False
        self._window_s = 0.0
        self._again_s = math.inf
        self._told = self._looks = self._found = 0

    def told(self) -> None:
        """A notification of a begin has come."""
        self._told += 1

    def looked(self, found: int, *, is_full: bool) -> None:
        """Take in how many runs a claim has found, and whether it got all it asked for."""
        self._looks += 1
        self._found += found
        self._is_left = is_full

    def should_ask(self, now_s: float) -> bool:
        """Tell whether to ask for quiet now, be it anew because another worker had asked."""
        if not self.is_told:
            return not self.has_asked and now_s >= self._again_s
        if now_s - self._window_s < WINDOW_S:
            return False
        is_crowded = self._told >= MANY and self._told >= 2 * self._looks > 0
        self._begin_window(now_s)
        return is_crowded and self._may_ask

    def asked(self, now_s: float, *, is_granted: bool) -> None:
        """Take in that it does not want to be told, and whether it holds the lock now."""
        if self.is_told:
            self._begin_window(now_s)
        self.is_told, self.has_asked = False, is_granted
        self._again_s = now_s + AGAIN_S

    def should_end(self, now_s: float) -> bool:
        """Tell whether to be told again: there is no crowd, or no room to look for it."""
        if self.is_told or now_s - self._window_s < WINDOW_S:
            return False
        is_over = not self._looks or (self._found < FEW and not self._is_left)
        self._begin_window(now_s)
        return is_over

    def ended(self, now_s: float) -> None:
        """Take in that it is told again."""
        self.is_told, self.has_asked = True, False
        self._begin_window(now_s)

    def _begin_window(self, now_s: float) -> None:
        self._window_s = now_s
        self._told = self._looks = self._found = 0
