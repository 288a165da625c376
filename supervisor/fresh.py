"""A child in a fresh interpreter, which imports the application itself: `python -m` this module.

For where forking is no choice: platforms on which a process cannot be adopted, and applications
whose imports leave behind what a fork does not survive. It costs the time of the import and its
memory, for each process.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from flows.supervisor.child import become_child
from flows.supervisor.handover import Handover, birth_of
from flows.supervisor.jobs import Inspect, Order, Target, read_order
from flows.supervisor.messages import Loaded
from flows.supervisor.signals import ALL_SIGNALS

if TYPE_CHECKING:
    from flows.supervisor.child import ChildEnd
    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.processes import Processes

__all__ = ["Interpreters", "main"]


@dataclass(frozen=True, slots=True)
class Interpreters:
    """Starts children in interpreters of their own.

    Attributes:
        processes: whose children they are.
        target: the application.
    """

    processes: Processes
    target: Target

    def start(self, order: Order) -> ChildProcess:
        """Start a child.

        Raises:
            OSError: there is no room for another process.
        """
        with Handover(self.processes, order) as handover:
            fds = handover.fds
            for fd in fds.values():
                os.set_inheritable(fd, True)
            pid = os.posix_spawn(
                sys.executable,
                [
                    sys.executable,
                    "-m",
                    __name__,
                    msgspec.json.encode(_Start(self.target, fds)).decode(),
                ],
                os.environ,
                # Until it has handlers of its own, a signal would end it unheard.
                setsigmask=[signal.SIGTERM, signal.SIGINT],
            )
            return handover.adopt(pid)


class _Start(msgspec.Struct):
    """The one argument of a fresh interpreter."""

    target: Target
    fds: dict[str, int]


def main(argument: str) -> None:
    """Become the child that the argument tells of; does not return."""
    started = msgspec.json.decode(argument, type=_Start)
    order = read_order(started.fds["order"])
    birth = birth_of(order, started.fds)
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)

    def work(end: ChildEnd) -> int:
        # Only here: what goes wrong is told to the supervisor.
        from flows.supervisor.application import load  # noqa: PLC0415
        from flows.supervisor.watching_files import loaded_roots  # noqa: PLC0415

        application = load(started.target)
        if isinstance(order.job, Inspect):
            end.channel.send(Loaded(application.workflows, (), loaded_roots()))
            return 0
        return application.run(order, end)

    become_child(work, birth, disown=lambda: None)


if __name__ == "__main__":
    main(sys.argv[1])
