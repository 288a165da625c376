"""The timekeeper: one thread that calls functions at their times.

It sleeps until the nearest time, however far, and looks at nothing in between. The thread starts
with the first call that is asked for.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from flows.clock import monotonic

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

__all__ = ["Alarm", "Timekeeper"]

_FEW = 256
"""So many calls that were taken back are kept, before the heap is made anew without them."""

_LONGEST_S = 86_400.0


class Alarm:
    """A call that is to be made.

    Attributes:
        act: what is called; None once it was called or taken back.
    """

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act


class Timekeeper:
    """Calls functions at their times, from a thread of its own. They must not wait."""

    def __init__(self, logger: logging.Logger) -> None:
        """Prepare a timekeeper; `logger` is told of functions that raise."""
        self._logger = logger
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def call_at(self, at_s: float, act: Callable[[], None]) -> Alarm:
        """Have `act` called at a time of the monotonic clock, or at once where that is past."""
        alarm = Alarm(act)
        entry = (at_s, next(self._numbers), alarm)
        with self._changed:
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._changed.notify()
            if self._thread is None and not self._is_stopping:
                self._thread = threading.Thread(
                    target=self._run, name="flows-timekeeper", daemon=True
                )
                self._thread.start()
        return alarm

    def drop(self, alarm: Alarm) -> None:
        """Take back a call; one that is being made is not waited for."""
        if alarm.act is None:
            return
        alarm.act = None
        with self._changed:
            self._dropped += 1
            if self._dropped > _FEW and self._dropped > len(self._heap) // 2:
                # Short steps with long timeouts would pile up here.
                self._heap = [entry for entry in self._heap if entry[2].act is not None]
                heapq.heapify(self._heap)
                self._dropped = 0

    @property
    def waiting(self) -> int:
        """How many entries the heap has, those included that were taken back."""
        return len(self._heap)

    def stop(self) -> None:
        """Call nothing more and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (act := self._next()) is not None:
            try:
                act()
            except Exception:
                # One attempt's trouble must not cost the others their deadlines.
                self._logger.exception("a deadline could not be kept")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._is_stopping:
                left_s = self._heap[0][0] - monotonic() if self._heap else _LONGEST_S
                if left_s > 0:
                    self._changed.wait(min(left_s, _LONGEST_S))
                    continue
                _, _, alarm = heapq.heappop(self._heap)
                act, alarm.act = alarm.act, None
                if act is not None:
                    return act
                self._dropped = max(0, self._dropped - 1)
        return None
