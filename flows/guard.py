"""Ending user code from outside: an exception raised in its thread, at once and nowhere else.

A thread alternates between code of the user's and code of the engine's:

    call ──> user code ──enter──> engine code ──leave──> user code ──> end of the call

While user code runs, the window holds a token. Whoever takes it owns the right of the moment: the
thread itself, to go on with engine code, or the timekeeper, to raise `TimeUp` in the thread. So
engine code is never hit: not psycopg in the middle of a message, not the bookkeeping of the
committer. And nothing reaches the next run of the thread: a thread that finds its token gone waits
until the exception is on its way, and takes back what has not arrived.

What comes while engine code runs is kept as the window's reason, and raised when user code would
go on. From then on every primitive of the attempt refuses, so what user code makes of `TimeUp`
does not matter.

This file relies on CPython's interpreter lock: a store or a `dict.pop` is one step, seen by other
threads in the order of the program. Exceptions arrive between bytecodes, at calls and backward
jumps; a thread that is in a call into C does not notice before that returns.
"""

from __future__ import annotations

import ctypes
import select
import sys
import traceback
from threading import get_ident
from typing import TYPE_CHECKING, Any

from flows.suspension import GivenUp, TimeUp

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Guard", "Window"]

_FUNCTION = ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
_raise_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(_FUNCTION)
_take_back_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(_FUNCTION)

_TOKEN = 0


class Window:
    """The user code of a workflow function, or of one try of a step with a time of its own.

    Attributes:
        token: holds one entry while user code runs and nobody has taken it.
        reason: why the code must end, None while it need not.
        is_told: whether the thread has raised `TimeUp` itself because of the reason.
        is_taken: whether an exception was sent that the thread has not settled yet.
        is_sending: whether the timekeeper is about to send one.
    """

    __slots__ = ("is_sending", "is_taken", "is_told", "reason", "token")

    def __init__(self) -> None:
        self.token: dict[int, bool] = {}
        self.reason: BaseException | None = None
        self.is_told = False
        self.is_taken = False
        self.is_sending = False


class Guard(Window):
    """Watches over the user code of one attempt; the window of its workflow function.

    Attributes:
        is_given_up: whether the attempt was ended from outside, so that nothing of it counts.
    """

    __slots__ = ("_inner", "_thread_id", "is_given_up")

    def __init__(self) -> None:
        """Watch over an attempt of the calling thread."""
        self.token = {}
        self.reason = None
        self.is_told = self.is_taken = self.is_sending = self.is_given_up = False
        self._inner: Window | None = None
        self._thread_id = get_ident()

    @property
    def window(self) -> Window:
        """The innermost window."""
        return self._inner or self

    # In the attempt's thread

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call user code.

        Raises:
            TimeUp: it had to end, whatever it has raised or returned; `reason` of the window says
                why, and the traceback where it was.
            GivenUp: the attempt was ended from outside.
        """
        window = self._inner or self
        token = window.token
        try:
            try:
                token[_TOKEN] = True
                if window.reason is not None:
                    raise TimeUp
                return function(*args)
            finally:
                if not token.pop(_TOKEN, False) or window.is_told:
                    raise TimeUp
        except TimeUp as interruption:
            caught = interruption
        # Written out each time: it may arrive at the beginning of a function, before any `try`.
        while True:
            try:
                self._settle(window)
                break
            except TimeUp:
                continue
        if self.is_given_up:
            raise GivenUp
        # The one that was raised in the middle of the code tells where that was.
        earlier = caught.__context__
        try:
            raise earlier if isinstance(earlier, TimeUp) else caught
        finally:
            del caught, earlier

    def call_within(self, window: Window, function: Callable[..., Any], *args: Any) -> Any:
        """Call user code in a window of its own; from engine code."""
        # In this order: who gives the attempt a reason does it in the opposite one.
        self._inner = window
        if self.reason is not None:
            window.reason = self.reason
        try:
            return self.call(function, *args)
        finally:
            self._inner = None

    def enter(self) -> None:
        """Engine code begins: nothing is raised in this thread until `leave`.

        Raises:
            TimeUp: the code that calls must end; it is user code still.
            GivenUp: the attempt was ended from outside.
        """
        window = self._inner or self
        if not window.token.pop(_TOKEN, False) or window.reason is not None:
            self._refuse(window)

    def enter_again(self) -> bool:
        """Enter engine code at the end of user code that the engine's own code surrounds.

        What has arrived goes on its way; what comes is kept until `leave`.

        Returns:
            False if this is not the user code that runs now: whoever collects garbage may end
            another one anywhere.
        """
        window = self.window
        if get_ident() != self._thread_id:
            return False
        if not window.token.pop(_TOKEN, False):
            _wait_for_sender(window)
            if not window.is_taken:
                return False
            while True:
                try:
                    self._settle(window)
                    break
                except TimeUp:
                    continue
        return True

    def check(self) -> None:
        """Look whether user code must end, from engine code.

        Raises:
            TimeUp: it must.
        """
        if self.window.reason is not None:
            raise TimeUp

    def leave(self, *, quietly: bool = False) -> None:
        """User code goes on.

        Args:
            quietly: raise nothing; whoever presses again will.

        Raises:
            TimeUp: it must end.
        """
        window = self._inner or self
        window.token[_TOKEN] = True
        if window.reason is not None and not window.is_told and not quietly:
            window.is_told = True
            raise TimeUp

    def _refuse(self, window: Window) -> None:
        while True:
            try:
                self._settle(window)
                break
            except TimeUp:
                continue
        window.is_told = True
        window.token[_TOKEN] = True
        raise GivenUp if self.is_given_up else TimeUp

    def _settle(self, window: Window) -> None:
        """Take back an exception that has not arrived; from here on none does."""
        while True:
            window.is_taken = False
            _wait_for_sender(window)
            if not window.is_taken:
                break
        _take_back_in(self._thread_id, None)

    # In other threads

    def stack(self) -> str:
        """Return where the thread is, as text."""
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001  as its docs have it
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    # In the timekeeper's thread

    def end(self, reason: BaseException) -> None:
        """Have the attempt end; the first reason counts."""
        if self.reason is None:
            self.reason = reason
        window = self.window
        if window.reason is None:
            window.reason = reason
        self.press(window)

    def end_within(self, window: Window, reason: BaseException) -> None:
        """Have the code of a window end."""
        if window.reason is None:
            window.reason = reason
        self.press(window)

    def press(self, window: Window, *, again: bool = False) -> None:
        """Raise `TimeUp` in the thread if user code runs there; engine code sees the reason.

        Args:
            window: where it must end.
            again: also if it was raised and not settled: something may have swallowed it.
        """
        window.is_sending = True
        try:
            is_ours = window.token.pop(_TOKEN, False)
            if is_ours:
                window.is_taken = True
            if is_ours or (again and window.is_taken):
                _raise_in(self._thread_id, TimeUp)
        finally:
            window.is_sending = False

    def give_up(self, window: Window) -> bool:
        """End the attempt from outside, if user code of the window runs in its thread.

        Returns:
            True if nothing that the thread does from now on counts.
        """
        window.is_sending = True
        try:
            if window.token.pop(_TOKEN, False):
                window.is_taken = True
            if window.is_taken:
                if self.reason is None:
                    self.reason = window.reason
                self.is_given_up = True
            return self.is_given_up
        finally:
            window.is_sending = False


def _wait_for_sender(window: Window) -> None:
    while window.is_sending:
        # The timekeeper is a few bytecodes from the end of `press`.
        select.poll().poll(1)
