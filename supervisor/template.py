"""The template: a process that has imported the application, and forks children from itself.

    supervisor ──fork──▶ template ──fork──▶ middle ──fork──▶ child
                                            ends at once     an orphan, and thereby the supervisor's

The supervisor never imports the application: whatever that does, from threads to a crash, is done
to a process that can be replaced. A reload is a new template beside the old one, whose code is
still there if the new one turns out not to work. Children are adopted by the supervisor, so
that the death of a template is nothing to them.

A request names the descriptors that come with it. It is answered by the pid of the new child, or
by the reason why there is none.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec

from flows.supervisor.application import threads_left_by_import
from flows.supervisor.child import become_child
from flows.supervisor.exits import ExitCode
from flows.supervisor.handover import Handover, birth_of
from flows.supervisor.jobs import read_order
from flows.supervisor.messages import Loaded
from flows.supervisor.signals import ALL_SIGNALS
from flows.supervisor.watching_files import loaded_roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.child import ChildEnd
    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.jobs import Application, Order
    from flows.supervisor.processes import Processes

__all__ = ["Template"]

_ANSWER_S = 5.0
"""How long the supervisor waits for an answer; it is there within a few milliseconds, or the
template is stuck and has to be replaced."""

_REQUEST_BYTES = 4096


class _Answer(msgspec.Struct):
    """What became of a request: a pid, or the number of the error."""

    pid: int = 0
    errno: int = 0


class Template:
    """A template, as the supervisor has it.

    Attributes:
        child: its process.
    """

    def __init__(
        self, processes: Processes, load: Callable[[], Application], *, title: str
    ) -> None:
        """Fork a template; it tells `Loaded` or `Refused`.

        Raises:
            OSError: the system has no room for another process now.
        """
        self._processes = processes
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def main(end: ChildEnd) -> int:
            ours.close()
            return _Mold(load, theirs).run(end)

        try:
            self.child = processes.fork(main, title=title)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_ANSWER_S)
        self._requests = ours
        # A copy of it in another child would keep the template from noticing that it is closed.
        processes.keep(ours)

    def start(self, order: Order) -> ChildProcess:
        """Have a child forked.

        Raises:
            OSError: there is no room for another process, or the template is dead or stuck.
        """
        with Handover(self._processes, order) as handover:
            fds = handover.fds
            try:
                socket.send_fds(self._requests, [msgspec.json.encode([*fds])], [*fds.values()])
                data = self._requests.recv(_REQUEST_BYTES)
            except TimeoutError:
                # Its death is noticed, and another one forked.
                self.child.send_signal(signal.SIGKILL)
                raise
            if not data:
                raise ConnectionResetError("the template is dead")
            answer = msgspec.json.decode(data, type=_Answer)
            if answer.errno:
                raise OSError(answer.errno, os.strerror(answer.errno))
            return handover.adopt(answer.pid)

    def close(self) -> None:
        """Have the template end; what it has forked goes on."""
        self._processes.let_go(self._requests)


@dataclass(slots=True)
class _Mold:
    """A template, as it is in its own process."""

    load: Callable[[], Application]
    requests: socket.socket

    def run(self, end: ChildEnd) -> int:
        application = self.load()
        # An application that ignores it would have the system reap our children unseen.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gc.collect()
        # What is there now is never looked at by the collector, and so stays shared.
        gc.freeze()
        end.channel.send(
            Loaded(application.workflows, tuple(threads_left_by_import()), loaded_roots())
        )
        end.watch(self.requests.fileno())
        while True:
            woken = end.wait()
            if woken.stop:
                return ExitCode.OK
            if self.requests.fileno() not in woken.readable:
                continue
            data, fds, _, _ = socket.recv_fds(self.requests, _REQUEST_BYTES, 8)
            if not data:
                return ExitCode.OK
            names = msgspec.json.decode(data, type=list[str])
            self.requests.send(msgspec.json.encode(self._fork(application, end, names, fds)))

    def _fork(
        self, application: Application, end: ChildEnd, names: list[str], fds: list[int]
    ) -> _Answer:
        """Fork a child whose parent is the supervisor, and close what was meant for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        read_fd, write_fd = os.pipe()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        try:
            middle = os.fork()
            if middle == 0:
                os.close(read_fd)
                self._fork_again(application, end, dict(zip(names, fds, strict=True)), write_fd)
        except OSError as error:
            os.close(read_fd)
            return _Answer(errno=error.errno or 0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            for fd in (write_fd, *fds):
                os.close(fd)
        with open(read_fd, "rb") as answer:  # noqa: PTH123  a descriptor
            data = answer.read()
        os.waitpid(middle, 0)
        return msgspec.json.decode(data, type=_Answer)

    def _fork_again(
        self, application: Application, end: ChildEnd, fds: dict[str, int], answer_fd: int
    ) -> NoReturn:
        """In the middle: fork the child, tell its pid, and end."""
        middle_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.write(answer_fd, msgspec.json.encode(_Answer(errno=error.errno or 0)))
            os._exit(0)
        if pid:
            os.write(answer_fd, msgspec.json.encode(_Answer(pid=pid)))
            os._exit(0)
        try:
            os.close(answer_fd)
            order = read_order(fds["order"])
            birth = birth_of(order, fds, middle_pid)
        except BaseException:  # noqa: BLE001  it must not go on in the frames of the template
            traceback.print_exc()
            os._exit(ExitCode.INTERNAL)
        become_child(
            lambda its_end: application.run(order, its_end), birth, disown=lambda: self._disown(end)
        )

    def _disown(self, end: ChildEnd) -> None:
        self.requests.close()
        end.close()
