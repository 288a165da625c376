"""Signals as items of the loop: the handler only enqueues, the loop acts."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import FrameType

__all__ = ["ALL_SIGNALS", "Interrupted", "SignalInbox", "interruptible", "reset_signals"]

ALL_SIGNALS = signal.valid_signals()


class Interrupted(BaseException):
    """A signal to stop has come before there was a loop that acts on it.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signal.Signals(signum)


@contextlib.contextmanager
def interruptible(
    stop: Collection[signal.Signals], other: Iterable[signal.Signals]
) -> Iterator[None]:
    """Have signals act by exceptions until a loop listens to them. Only in the main thread.

    Their default action would end this process without a word, or stop it; process 1 of a
    container has no default action, and would not hear that it is to end.

    Args:
        stop: the first of these raises `Interrupted`, INT as ever `KeyboardInterrupt`.
        other: what the loop will act on; without effect until then.
    """
    came = False

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        nonlocal came
        # A second one must not interrupt the clearing up after the first.
        if not came:
            came = True
            raise KeyboardInterrupt if signum == signal.SIGINT else Interrupted(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in stop}
    for signum in other:
        # What `nohup` ignores stays ignored in the children.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, _enqueued_by_the_interpreter)
    try:
        yield
    finally:
        # A process whose loop has listened is ending: nothing more may change how.
        if all(signal.getsignal(signum) is interrupt for signum in stop):
            for signum, handler in before.items():
                signal.signal(signum, handler or signal.SIG_DFL)


class SignalInbox:
    """Collects the signals of the process in a pipe that a selector can watch.

    Made in the main thread, once per process. The interpreter writes the number of a signal into
    the pipe the moment it arrives, also while the main thread is busy in a long call.
    """

    def __init__(self, wanted: Iterable[signal.Signals]) -> None:
        self._wanted = frozenset(wanted)
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        # A full pipe holds thousands of signals that say the same: the next one may be dropped.
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in self._wanted:
            signal.signal(signum, _enqueued_by_the_interpreter)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a signal has arrived."""
        return self._read_fd

    def take(self) -> list[signal.Signals]:
        """Return the signals that have arrived, in order."""
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return []
        # The application may have handlers of its own, whose signals are written here too.
        return [signal.Signals(number) for number in numbers if number in self._wanted]

    def close(self) -> None:
        """Release the descriptors; used in a forked child, whose signals are its own."""
        os.close(self._read_fd)
        os.close(self._write_fd)


def reset_signals() -> None:
    """Give back their default action to all signals that have a handler in Python.

    What was ignored stays ignored: `nohup` must reach the children too.
    """
    signal.set_wakeup_fd(-1)
    for signum in ALL_SIGNALS:
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)


def _enqueued_by_the_interpreter(signum: int, frame: FrameType | None) -> None:
    """Do nothing: without a handler in Python the interpreter would not write to the pipe."""
