"""The limits of one attempt: its run's deadline, the timeout of its step, a request to cancel.

What happens when one of them is reached, the ladder:

    at once             the attempt's statement on wf.tx is cancelled, and `TimeUp` raised
    half of the grace   raised once more, should something have swallowed it
    the grace           the connection of a statement that cannot be cancelled is cut;
                        an attempt whose user code does not end is given up, with its thread
    ever after          the same, as long as engine code waits: for the committer, say

Engine code is never interrupted. It waits for the database alone, and user code ends right after.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from flows.clock import LONGEST_WAIT_S, monotonic, seconds
from flows.guard import Guard, Window
from flows.suspension import Cancelled, Overdue, TimeUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.engine import Engine
    from flows.errors import RunTimeoutError
    from flows.timekeeper import Alarm
    from flows.transaction import AttemptTransaction

__all__ = ["Limits", "StepLimit"]


class StepLimit:
    """The timeout of one try of a step.

    Attributes:
        window: in which its function is called.
        at_s: when its time is up, on the monotonic clock.
    """

    __slots__ = ("alarm", "at_s", "window")

    def __init__(self, at_s: float) -> None:
        self.window = Window()
        self.at_s = at_s
        self.alarm: Alarm | None = None


class Limits:
    """What ends the user code of one attempt.

    Attributes:
        guard: calls it.
        deadline_s: of the run, on the monotonic clock; None for none.
        is_cancelled: whether somebody has asked for the run to be cancelled.
    """

    __slots__ = (
        "_alarms",
        "_engine",
        "_is_over",
        "_on_given_up",
        "_step",
        "_transaction",
        "_woken",
        "deadline_s",
        "guard",
        "is_cancelled",
    )

    def __init__(
        self,
        engine: Engine,
        transaction: AttemptTransaction,
        deadline_s: float | None,
        on_given_up: Callable[[], None],
    ) -> None:
        """Prepare the limits of an attempt of the calling thread.

        Args:
            engine: what attempts share.
            transaction: `wf.tx` of the attempt.
            deadline_s: of the run, on the monotonic clock; None for none.
            on_given_up: called, from a thread that may wait, when user code would not end.
        """
        self._engine = engine
        self._transaction = transaction
        self._on_given_up: Callable[[], None] | None = on_given_up
        self._alarms: list[Alarm] | None = None
        self._step: StepLimit | None = None
        self._woken: threading.Event | None = None
        self._is_over = self.is_cancelled = False
        self.guard = Guard()
        self.deadline_s = deadline_s

    # In the attempt's thread

    def begin(self, deadline_s: float, error: RunTimeoutError) -> None:
        """User code is about to be called; `error` is what the run fails with at its deadline.

        Raises:
            Overdue: it is past it already.
        """
        if deadline_s <= monotonic():
            raise Overdue(error)
        self._call_at(deadline_s, lambda: self._end(Overdue(error)))

    def begin_step(self, timeout: timedelta) -> StepLimit:
        """Return the limit of a try of a step that begins now."""
        limit = StepLimit(monotonic() + seconds(timeout))
        self._step = limit
        limit.alarm = self._engine.timekeeper.call_at(limit.at_s, lambda: self._end_step(limit))
        return limit

    def end_step(self, limit: StepLimit) -> None:
        """The try has ended."""
        self._step = None
        if limit.alarm is not None:
            self._engine.timekeeper.drop(limit.alarm)

    def end(self) -> None:
        """The attempt has ended."""
        self._is_over = True
        # It holds the attempt, which would be left to the garbage collector.
        self._on_given_up = None
        for alarm in self._alarms or ():
            self._engine.timekeeper.drop(alarm)

    @property
    def nearest_s(self) -> float | None:
        """When the nearest limit is reached, on the monotonic clock."""
        step, deadline_s = self._step, self.deadline_s
        if step is None:
            return deadline_s
        return step.at_s if deadline_s is None else min(step.at_s, deadline_s)

    @property
    def remaining(self) -> timedelta | None:
        """How long user code may go on; None where nothing limits it."""
        nearest_s = self.nearest_s
        return None if nearest_s is None else timedelta(seconds=max(0.0, nearest_s - monotonic()))

    def pause(self, delay_s: float) -> bool:
        """Wait between tries of a step, in engine code.

        Returns:
            False if the worker stops meanwhile.

        Raises:
            TimeUp: the attempt must end meanwhile.
        """
        woken = self._woken = threading.Event()
        abandoned = self._engine.abandoned
        # Looked at only now: who sets one of them wakes who waits afterwards.
        if self.guard.reason is None and not abandoned.is_set():
            woken.wait(min(max(0.0, delay_s), LONGEST_WAIT_S))
        self._woken = None
        if self.guard.reason is not None:
            raise TimeUp
        return not abandoned.is_set()

    # In other threads

    def wake(self) -> None:
        """Have `pause` look again; from any thread."""
        woken = self._woken
        if woken is not None:
            woken.set()

    def cancel(self) -> None:
        """Somebody wants the run cancelled; from any thread."""
        self.is_cancelled = True
        self._call_at(monotonic(), lambda: self._end(Cancelled("the run was cancelled")))

    def _call_at(self, at_s: float, act: Callable[[], None]) -> None:
        alarm = self._engine.timekeeper.call_at(at_s, act)
        if self._alarms is None:
            self._alarms = []
        self._alarms.append(alarm)

    # In the timekeeper's thread

    def _end(self, reason: Cancelled | Overdue) -> None:
        self.guard.end(reason)
        self.wake()
        self._stop_statement(self._goes_on, cut=False)
        half_s = self._engine.timeout_grace_s / 2
        self._call_at(monotonic() + half_s, lambda: self._end_again(half_s))

    def _end_again(self, rest_s: float) -> None:
        self.guard.press(self.guard.window, again=True)
        self._call_at(monotonic() + rest_s, self._insist)

    def _insist(self) -> None:
        if self._goes_on() and not self._force(self.guard.window, self._goes_on):
            self._call_at(monotonic() + self._engine.timeout_grace_s, self._insist)

    def _goes_on(self) -> bool:
        return not self._is_over

    def _end_step(self, limit: StepLimit) -> None:
        self.guard.end_within(limit.window, TimeUp())
        self._stop_statement(lambda: self._step is limit, cut=False)
        half_s = self._engine.timeout_grace_s / 2
        self._call_in_step(limit, half_s, lambda: self._end_step_again(limit, half_s))

    def _end_step_again(self, limit: StepLimit, rest_s: float) -> None:
        self.guard.press(limit.window, again=True)
        self._call_in_step(limit, rest_s, lambda: self._insist_on_step(limit))

    def _insist_on_step(self, limit: StepLimit) -> None:
        if not self._force(limit.window, lambda: self._step is limit):
            grace_s = self._engine.timeout_grace_s
            self._call_in_step(limit, grace_s, lambda: self._insist_on_step(limit))

    def _call_in_step(self, limit: StepLimit, delay_s: float, act: Callable[[], None]) -> None:
        if self._step is limit:
            limit.alarm = self._engine.timekeeper.call_at(monotonic() + delay_s, act)

    def _force(self, window: Window, goes_on: Callable[[], bool]) -> bool:
        """End what has not ended within the grace; return whether nothing is left to do."""
        self._stop_statement(goes_on, cut=True)
        on_given_up = self._on_given_up
        if on_given_up is None or not self.guard.give_up(window):
            return False
        _aside(on_given_up)
        return True

    def _stop_statement(self, goes_on: Callable[[], bool], *, cut: bool) -> None:
        transaction = self._transaction
        if transaction.is_executing:
            _aside(lambda: transaction.stop_statement(goes_on, cut=cut))


def _aside(act: Callable[[], None]) -> None:
    # What may wait for the network must not delay the deadlines of others.
    threading.Thread(target=act, name="flows-rescue", daemon=True).start()
