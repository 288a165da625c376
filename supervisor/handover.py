"""What the supervisor and a child that it does not fork itself give each other: descriptors."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from flows.board import Board
from flows.supervisor.child import Birth
from flows.supervisor.jobs import Work, write_order
from flows.supervisor.messages import Channel

if TYPE_CHECKING:
    from types import TracebackType

    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.jobs import Order
    from flows.supervisor.processes import Processes

__all__ = ["Handover", "birth_of"]


class Handover:
    """Both ends of everything, until the child has its own.

    In its `with` block the descriptors `fds` are handed to the child, and the child is `adopted`;
    where that fails nothing is left open.
    """

    def __init__(self, processes: Processes, order: Order) -> None:
        """Open what the child of an order needs.

        Raises:
            OSError: the system has no descriptor or no memory left; nothing is left open.
        """
        self._processes = processes
        self._order = order
        self._board: Board | None = None
        with ExitStack() as ours, ExitStack() as theirs:
            self._ours, self._theirs = (Channel(end) for end in socket.socketpair())
            ours.callback(self._ours.close)
            theirs.callback(self._theirs.close)
            self._output, output_fd = processes.open_output()
            self._only_ours_to_hand: dict[str, int] = {}
            if self._output is not None and output_fd is not None:
                ours.callback(self._output.close)
                self._hand("output", output_fd, theirs)
            self._hand("order", write_order(order), theirs)
            if isinstance(order.job, Work):
                fd = Board.open(order.job.executors, order.job.rate)
                self._hand("board", fd, theirs)
                self._board = Board(fd)
                ours.callback(self._board.close)
            self._of_ours, self._of_theirs = ours.pop_all(), theirs.pop_all()

    def _hand(self, what: str, fd: int, theirs: ExitStack) -> None:
        self._only_ours_to_hand[what] = fd
        theirs.callback(os.close, fd)

    @property
    def fds(self) -> dict[str, int]:
        """The descriptors for the child, by what they are."""
        fds = {"channel": self._theirs.fileno(), **self._only_ours_to_hand}
        return {**fds, "stdout": 1} if self._order.keeps_stdout else fds

    def adopt(self, pid: int) -> ChildProcess:
        """Take the child as one to be watched."""
        child = self._processes.adopt(
            pid, self._ours, self._output, self._board, title=self._order.title
        )
        self._of_ours.pop_all()
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._of_ours:
            self._of_theirs.close()


def birth_of(order: Order, fds: dict[str, int], middle_pid: int | None = None) -> Birth:
    """Return what a child is given, in the child.

    Args:
        order: what it was started for.
        fds: the descriptors, as it has received them.
        middle_pid: of the process that has forked it, if that is not the supervisor.
    """
    return Birth(
        order.title,
        Channel(socket.socket(fileno=fds["channel"])),
        order.supervisor_pid,
        middle_pid,
        fds.get("output"),
        fds.get("stdout"),
        fds.get("board"),
        order.log,
        order.debug,
    )
