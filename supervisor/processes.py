"""Start, watch, reap: the processes of a supervisor and everything that can happen to them.

`Processes.wait` is the only place where the supervisor sleeps. It returns what happened, as
`Signalled`, `Told` or `Died`, and takes nothing decided from here.

On Linux each child has a pidfd, readable when it has died; elsewhere, and where no descriptor was
left for one, SIGCHLD tells that one of them has. SIGCHLD also tells of orphans: what a dead child
has left behind becomes a child of the supervisor where that is process 1 of a container, or as
Linux calls it a subreaper, and is reaped without a word. So do the workers, which a template forks
by way of a process that ends.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, cast

from flows import clock
from flows.supervisor.child import Birth, ChildMain, become_child
from flows.supervisor.happenings import ChildProcess, Died, Happening, Signalled, Told
from flows.supervisor.logs import ChildOutput
from flows.supervisor.messages import Channel
from flows.supervisor.signals import ALL_SIGNALS, SignalInbox
from flows.supervisor.streams import LogStyle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.board import Board

__all__ = [
    "CAN_ADOPT",
    "Hear",
    "Processes",
    "Source",
]

_HAS_PIDFD = hasattr(os, "pidfd_open")
_HAS_WAITID = hasattr(os, "waitid")

CAN_ADOPT = sys.platform == "linux"
"""Whether the orphans of a child can be made children of the supervisor."""

_PR_SET_CHILD_SUBREAPER = 36

_LONGEST_S = 86_400.0
"""Longer waits are cut: epoll takes none of 25 days, and who waits looks at the time anyway."""

_REAP_S = 1.0
"""How long to wait at the end for killed children, which the system may keep for a while."""


Hear = Callable[[str, int, str], None]
"""Told of a line that a child has printed: its title, its pid, the line."""


class Source(Protocol):
    """Something with a descriptor that a selector can watch."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Processes:
    """The children of this process, and the one selector on which it waits for them.

    Attributes:
        debug: children print the traceback of what ends them.
    """

    def __init__(
        self, hear: Hear | None = None, log: LogStyle | None = None, *, debug: bool = False
    ) -> None:
        """Prepare to start children.

        Args:
            hear: told of each line that a child prints: title, pid, line. Without it, the output
                of children goes where the supervisor's goes.
            log: how children log.
            debug: children print the traceback of what ends them.
        """
        self._hear_line = hear
        self._log = log or LogStyle()
        # An application that ignores it would make the system reap our children unseen.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.debug = debug
        self._selector = selectors.DefaultSelector()
        self._inbox: SignalInbox | None = None
        self._children: set[ChildProcess] = set()
        self._own: set[Source] = set()
        self._resting: dict[Source, tuple[float, Callable[[], list[Happening]]]] = {}
        if CAN_ADOPT:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "prctl(PR_SET_CHILD_SUBREAPER)")

    def listen(self, signals: Iterable[signal.Signals]) -> None:
        """From here on, have these signals come out of `wait`. Only in the main thread."""
        assert self._inbox is None
        self._inbox = SignalInbox({*signals, signal.SIGCHLD})
        self._selector.register(self._inbox, selectors.EVENT_READ, self._take_signals)

    def watch(self, source: Source, act: Callable[[], list[Happening]]) -> None:
        """Have `wait` call `act` when there is something to read; children close the source."""
        self._selector.register(source, selectors.EVENT_READ, act)

    def rewatch(self, source: Source, *, writing: bool) -> None:
        """Have `wait` call the act of a watched source also when it takes something, or not."""
        act = self._selector.get_key(source).data
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(source, events, act)

    def unwatch(self, source: Source) -> None:
        """Undo `watch`."""
        if self._resting.pop(source, None) is None:
            self._selector.unregister(source)

    def rest(self, source: Source, for_s: float) -> None:
        """Do not look at a watched source for a while: it stays readable, and nothing can be done.

        What waits meanwhile returns when that is over.
        """
        act = self._selector.unregister(source).data
        self._resting[source] = (clock.monotonic() + for_s, act)

    def keep(self, source: Source) -> None:
        """Have children close `source`: it is for the supervisor alone."""
        self._own.add(source)

    def let_go(self, source: Source) -> None:
        """Undo `keep`, and close `source`."""
        self._own.discard(source)
        source.close()

    def fork(self, main: ChildMain, *, title: str, lent: Source | None = None) -> ChildProcess:
        """Fork a child that runs `main`.

        Args:
            main: its work.
            title: what `ps` shows of it.
            lent: what it may use although others close it.

        Raises:
            OSError: the system has no room for another process now.
        """
        # What stands in the buffers would be written by both processes.
        sys.stdout.flush()
        sys.stderr.flush()
        with ExitStack() as mine, ExitStack() as its:
            ours, theirs = (Channel(end) for end in socket.socketpair())
            mine.callback(ours.close)
            its.callback(theirs.close)
            output, output_fd = self.open_output()
            if output is not None and output_fd is not None:
                mine.callback(output.close)
                its.callback(os.close, output_fd)
            birth = Birth(
                title, theirs, os.getpid(), output_fd=output_fd, log=self._log, debug=self.debug
            )
            pid = self._fork(main, birth, lambda: self._disown(ours, output, lent))
            child = self.adopt(pid, ours, output, title=title)
            mine.pop_all()
        return child

    def _fork(self, main: ChildMain, birth: Birth, disown: Callable[[], None]) -> int:
        # A signal for the child that came before it has its own handlers would be taken for one
        # of the supervisor's, whose pipe it still shares.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                become_child(main, birth, disown=disown)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return pid

    def open_output(self) -> tuple[ChildOutput | None, int | None]:
        """Return both ends of a pipe for the output of a child, if somebody wants to hear it."""
        if self._hear_line is None:
            return None, None
        read_fd, write_fd = os.pipe()
        return ChildOutput(read_fd), write_fd

    def adopt(
        self,
        pid: int,
        channel: Channel,
        output: ChildOutput | None,
        board: Board | None = None,
        *,
        title: str,
    ) -> ChildProcess:
        """Take a process as a child to be watched; the system counts it as one of ours already.

        Args:
            pid: of the process, dead or alive, but not reaped.
            channel: the supervisor's end of the socket to it.
            output: the supervisor's end of the pipe for what it prints.
            board: its page of the scoreboard.
            title: what `ps` shows of it.

        Raises:
            OSError: it cannot be watched, and is killed.
        """
        pidfd = _pidfd_of(pid)
        child = ChildProcess(pid, channel, pidfd, output, board, title)
        with ExitStack() as undo:
            undo.callback(os.kill, pid, signal.SIGKILL)
            if pidfd is not None:
                undo.callback(os.close, pidfd)
            for source, act in (
                (output, lambda: self._listen_to(child)),
                (channel, lambda: self._hear(child)),
                (pidfd, lambda: self._reap(child)),
            ):
                if source is not None:
                    self._selector.register(source, selectors.EVENT_READ, act)
                    undo.callback(self._selector.unregister, source)
            undo.pop_all()
        self._children.add(child)
        return child

    def _disown(self, ours: Channel, output: ChildOutput | None, lent: Source | None) -> None:
        """Close, in a child, what it has inherited of the supervisor's.

        Closed and never unregistered: the selector's kernel object is shared with the supervisor.
        An end of a sibling's socket left open here would hide the supervisor's death from it.
        """
        ours.close()
        if output is not None:
            output.close()
        for source in (self._own - {lent}) | self._resting.keys():
            source.close()
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            else:
                cast("Source", key.fileobj).close()
        self._selector.close()

    def wait(self, timeout_s: float | None) -> list[Happening]:
        """Wait until something happens or the timeout is over; return what happened.

        What a child has said comes before its death.
        """
        ready = self._selector.select(self._wait_s(timeout_s))
        # Deaths last, with what was said before them: an act may unregister what comes after it.
        ready.sort(key=lambda item: isinstance(item[0].fileobj, int))
        happened: list[Happening] = []
        registered = self._selector.get_map()
        for key, _ in ready:
            if registered.get(key.fd) is key:
                happened += key.data()
        return happened

    def _wait_s(self, timeout_s: float | None) -> float:
        """Watch again what has rested, and return how long to wait for something to happen."""
        now_s = clock.monotonic()
        for source, (until_s, act) in [*self._resting.items()]:
            if until_s <= now_s:
                del self._resting[source]
                self.watch(source, act)
        waits_s = [until_s - now_s for until_s, _ in self._resting.values()]
        return min(_LONGEST_S, *waits_s, _LONGEST_S if timeout_s is None else timeout_s)

    def signal_all(self, signum: signal.Signals) -> None:
        """Send a signal to every child."""
        for child in self._children:
            child.send_signal(signum)

    def kill_all(self) -> None:
        """Kill every child that is left, with its group."""
        for child in self._children:
            child.kill_group()
            child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Reap what was killed, and release all descriptors.

        Signals have their default action again.
        """
        deadline_s = clock.monotonic() + _REAP_S
        while self._children and (left_s := deadline_s - clock.monotonic()) > 0:
            self.wait(left_s)
        signal.set_wakeup_fd(-1)
        for child in self._children:
            child.close()
        self._selector.close()
        if self._inbox is not None:
            self._inbox.close()

    def _take_signals(self) -> list[Happening]:
        assert self._inbox is not None
        taken = self._inbox.take()
        happened: list[Happening] = []
        if signal.SIGCHLD in taken:
            for child in [*self._children]:
                if child.pidfd is None:
                    happened += self._reap(child)
            self._reap_orphans()
        happened += [Signalled(signum) for signum in taken if signum is not signal.SIGCHLD]
        return happened

    def _reap_orphans(self) -> None:
        """Reap what nobody waits for; a death of a child of ours tells of itself."""
        known = {child.pid for child in self._children}
        while _HAS_WAITID:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None or dead.si_pid in known:
                return
            os.waitpid(dead.si_pid, os.WNOHANG)

    def _hear(self, child: ChildProcess) -> list[Happening]:
        messages = child.channel.receive()
        child.channel.flush()
        if child.channel.closed and child in self._children:
            # Readable for ever from now on; the death is noticed by itself.
            self._selector.unregister(child.channel)
        return [Told(child, message) for message in messages]

    def _listen_to(self, child: ChildProcess) -> list[Happening]:
        assert child.output is not None
        self._pass_on(child, child.output.read())
        if not child.output.is_open:
            self.unwatch(child.output)
        return []

    def _finish_output(self, child: ChildProcess) -> None:
        if child.output is not None:
            if child.output.is_open:
                self.unwatch(child.output)
            self._pass_on(child, child.output.finish())

    def _pass_on(self, child: ChildProcess, lines: list[str]) -> None:
        assert self._hear_line is not None
        for line in lines:
            self._hear_line(child.title, child.pid, line)

    def _reap(self, child: ChildProcess) -> list[Happening]:
        if child not in self._children or (code := _reap(child)) is None:
            return []
        last_words = [] if child.channel.closed else self._hear(child)
        self._children.remove(child)
        child.is_reaped = True
        if not child.channel.closed:
            self._selector.unregister(child.channel)
        if child.pidfd is not None:
            self._selector.unregister(child.pidfd)
        self._finish_output(child)
        last = None if child.board is None else child.board.read()
        child.close()
        self._reap_orphans()
        return [*last_words, Died(child, code, clock.monotonic() - child.started_s, last)]


def _pidfd_of(pid: int) -> int | None:
    """Return a descriptor of a process, None where there are none or none is left."""
    try:
        return os.pidfd_open(pid) if _HAS_PIDFD else None
    except OSError:
        return None


def _reap(child: ChildProcess) -> int | None:
    """Return how a child ended, as `Died.code`, having killed what it left; None if it lives."""
    if _HAS_WAITID:
        # Looked at before it is reaped: the group of a dead leader is still named by its pid.
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        child.kill_group()
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid == 0:
        return None
    if not _HAS_WAITID:
        child.kill_group()
    return os.waitstatus_to_exitcode(status)
