"""What the supervisor and a child that it does not fork itself give each other: descriptors."""

from __future__ import annotations

import os
import socket
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
        """Open what the child of an order needs."""
        self._processes = processes
        self._order = order
        self._ours, self._theirs = (Channel(end) for end in socket.socketpair())
        self._output, output_fd = processes.open_output()
        self._only_ours_to_hand = {"order": write_order(order)}
        self._board: Board | None = None
        if isinstance(order.job, Work):
            fd = Board.open(order.job.executors, order.job.rate)
            self._board = Board(fd)
            self._only_ours_to_hand["board"] = fd
        if output_fd is not None:
            self._only_ours_to_hand["output"] = output_fd
        self._child: ChildProcess | None = None

    @property
    def fds(self) -> dict[str, int]:
        """The descriptors for the child, by what they are."""
        fds = {"channel": self._theirs.fileno(), **self._only_ours_to_hand}
        return {**fds, "stdout": 1} if self._order.keeps_stdout else fds

    def adopt(self, pid: int) -> ChildProcess:
        """Take the child as one to be watched."""
        self._child = self._processes.adopt(
            pid, self._ours, self._output, self._board, title=self._order.title
        )
        return self._child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._theirs.close()
        for fd in self._only_ours_to_hand.values():
            os.close(fd)
        if self._child is None:
            self._ours.close()
            if self._output is not None:
                self._output.close()
            if self._board is not None:
                self._board.close()


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
