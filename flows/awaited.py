"""Runs for whose end somebody waits.

A run that ends tells nobody: for most of them nobody waits, and notifications are not free, since
of the transactions that have one only one commits at a time. So whoever waits says so on the
channel of the workers, with a question mark and the key of the run, and the worker that commits the
run's end tells it on another channel, which only those hear who wait.

Either may be lost, and a worker that starts later has not heard the question: who waits repeats it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flows.records import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.records import RunRecord

__all__ = ["ASKING", "Awaited", "channel_of_ends"]

ASKING = "?"
"""Before the key of a run, on the channel of the workers."""

MAX_REMEMBERED = 10_000
_LONGEST_CHANNEL = 63
_SUFFIX = "_ended"


def channel_of_ends(channel: str) -> str:
    """Return where the ends of runs are told, beside the channel of their workers."""
    return channel[: _LONGEST_CHANNEL - len(_SUFFIX)] + _SUFFIX


class Awaited:
    """What one worker has heard of runs that are waited for; shared by its threads."""

    def __init__(self, channel: str | None) -> None:
        """Begin with none; `channel` is that of the workers, None for nowhere."""
        self.channel = None if channel is None else channel_of_ends(channel)
        self._lock = threading.Lock()
        self._keys: dict[str, None] = {}

    def add(self, key: str) -> None:
        """Somebody waits for a run; of too many the first is forgotten."""
        with self._lock:
            self._keys.pop(key, None)
            self._keys[key] = None
            if len(self._keys) > MAX_REMEMBERED:
                del self._keys[next(iter(self._keys))]

    def among(self, records: Iterable[RunRecord]) -> list[str]:
        """Return the keys of those that are waited for and end with these records."""
        if not self._keys:
            return []
        with self._lock:
            ended = [f"{one.shard}:{one.run_id}" for one in records if _ends(one)]
            return [key for key in ended if key in self._keys]

    def forget(self, records: Iterable[RunRecord]) -> None:
        """Forget those that end with these records: it is committed, so who waits has been told."""
        told = self.among(records)
        with self._lock:
            for key in told:
                self._keys.pop(key, None)


def _ends(record: RunRecord) -> bool:
    outcome = record.outcome
    if outcome is None:
        return False
    is_failed = outcome.kind is OutcomeKind.FAILED and outcome.wake_in_s is None
    return is_failed or outcome.kind in (OutcomeKind.COMPLETED, OutcomeKind.CANCELLED)
