"""What a forked process does first and last.

First, with all signals blocked since before the fork, it stops being a copy of its parent:
signals no longer reach the parent's pipe, handlers are the default ones, the process leads a
group of its own, dies with the supervisor, and has closed the descriptors of its siblings. Last, it
leaves by `os._exit`, so that a thread which is stuck in user code cannot hold it, and nothing that
the supervisor has registered for its own end happens here.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import select
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from setproctitle import setproctitle

from flows.board import Board
from flows.supervisor.exits import ExitCode, exit_code_for, explain
from flows.supervisor.messages import Channel, Message, Refused
from flows.supervisor.signals import ALL_SIGNALS, SignalInbox, reset_signals
from flows.supervisor.streams import LogStyle, redirect

__all__ = [
    "STOP_SIGNALS",
    "Birth",
    "ChildEnd",
    "ChildMain",
    "Woken",
    "become_child",
    "die_with_parent",
]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What asks a child to finish; the supervisor sends TERM."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Woken:
    """Why `ChildEnd.wait` has returned.

    Attributes:
        messages: what the supervisor has sent.
        stop: whether this process was asked to stop.
        readable: the watched descriptors that are readable.
    """

    messages: list[Message]
    stop: bool
    readable: frozenset[int]


class ChildEnd:
    """What a child has of its supervisor.

    Attributes:
        channel: messages in both directions; when it closes, the supervisor is gone.
        board: its page of the scoreboard, None where it has none.
        title: what `ps` shows at first.
    """

    def __init__(
        self, channel: Channel, inbox: SignalInbox, board: Board | None = None, title: str = ""
    ) -> None:
        self.channel = channel
        self.board = board
        self.title = title
        self._inbox = inbox
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._selector.register(inbox, selectors.EVENT_READ)

    def watch(self, fd: int) -> None:
        """Have `wait` return when `fd` is readable, too."""
        self._selector.register(fd, selectors.EVENT_READ)

    def wait(self, timeout_s: float | None = None) -> Woken:
        """Wait for a message, a signal to stop, a watched descriptor, or the timeout.

        Does not return if the supervisor is gone: this process is then of no use to anybody, and
        another one may be executing its runs already.
        """
        selected = self._selector.select(timeout_s)
        self.channel.flush()
        messages = self.channel.receive()
        if self.channel.closed:
            os._exit(ExitCode.ORPHANED)
        readable = frozenset(key.fd for key, _ in selected)
        return Woken(messages, bool(self._inbox.take()), readable)

    def close(self) -> None:
        """Release the descriptors; used in a process that is forked from this one."""
        self.channel.close()
        self._inbox.close()
        self._selector.close()


ChildMain = Callable[[ChildEnd], int]
"""The work of a child; what it returns becomes the exit code."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a new process is given.

    Attributes:
        title: what `ps` shows.
        channel: its end of the socket to the supervisor.
        supervisor_pid: whose child it is.
        middle_pid: of the process that has forked it and ends at once, where the supervisor
            has not forked it itself.
        output_fd: the pipe for what it prints and logs; None leaves that where it goes.
        stdout_fd: where its stdout goes instead.
        board_fd: its page of the scoreboard, None where it has none.
        log: how it logs.
        debug: print the traceback of whatever ends it.
    """

    title: str
    channel: Channel
    supervisor_pid: int
    middle_pid: int | None = None
    output_fd: int | None = None
    stdout_fd: int | None = None
    board_fd: int | None = None
    log: LogStyle = LogStyle()  # noqa: RUF009  immutable
    debug: bool = False


def become_child(main: ChildMain, birth: Birth, *, disown: Callable[[], None]) -> NoReturn:
    """Turn this new process into a child and run `main`; all signals are blocked on entry.

    Args:
        main: the work.
        birth: what the process is given.
        disown: closes what only its parent should hold.
    """
    code: int = ExitCode.INTERNAL
    try:
        reset_signals()
        disown()
        inbox = _detach(birth)
        board = None
        if birth.board_fd is not None:
            board = Board(birth.board_fd)
            os.close(birth.board_fd)
        code = main(ChildEnd(birth.channel, inbox, board, birth.title))
    except Exception as error:  # noqa: BLE001  the process ends here: told, and turned into its exit code
        code = _refuse(birth, error)
    except BaseException:  # noqa: BLE001  likewise: it must not unwind into the frames of its parent
        traceback.print_exc()
    finally:
        _leave(code)


def _detach(birth: Birth) -> SignalInbox:
    os.setpgid(0, 0)
    if birth.middle_pid is not None:
        _await_adoption(birth.middle_pid)
    die_with_parent(birth.supervisor_pid)
    # A process of a background group that reads the terminal would be stopped.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if birth.output_fd is not None:
        redirect(birth.output_fd, birth.log, birth.stdout_fd)
    inbox = SignalInbox(STOP_SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL_SIGNALS)
    setproctitle(birth.title)
    faulthandler.enable(file=2)
    # To descriptor 2, wherever that goes, and also of threads that a call into C holds up.
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    _reseed()
    return inbox


def _await_adoption(middle_pid: int) -> None:
    """Wait until the process that has forked this one is gone, a matter of microseconds."""
    never = select.poll()
    while os.getppid() == middle_pid:
        never.poll(1)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies.

    A parent that died before the request was made would never be noticed: hence the comparison
    after it. Elsewhere than on Linux the end of the channel takes its place.
    """
    if _libc is not None and _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(ExitCode.ORPHANED)


def _reseed() -> None:
    """Give this process random numbers of its own, where siblings would draw the same ones."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _refuse(birth: Birth, error: Exception) -> int:
    code = exit_code_for(error)
    if birth.debug or code is ExitCode.INTERNAL:
        traceback.print_exception(error)
    birth.channel.send(Refused(code, explain(error)))
    return code


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Nobody reads it any more; the exit code still says how this process ended.
            continue
    os._exit(code)
