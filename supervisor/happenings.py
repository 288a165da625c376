"""Children, and what can happen to a supervisor that has some."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows import clock

if TYPE_CHECKING:
    from flows.board import Board, BoardState
    from flows.supervisor.logs import ChildOutput
    from flows.supervisor.messages import Channel, Message

__all__ = ["ChildProcess", "Died", "Happening", "Signalled", "Told", "describe_status"]


@dataclass(eq=False, slots=True)
class ChildProcess:
    """A child of the supervisor that it has not yet seen dead.

    Attributes:
        pid: its process id.
        channel: the supervisor's end of the socket to it.
        pidfd: descriptor of the process, None where the platform has none.
        output: what it prints and logs, None where that goes elsewhere.
        board: its page of the scoreboard, None where it has none.
        title: what `ps` shows at first.
        started_s: when it was started, on the monotonic clock.
        is_reaped: whether its death is seen, though perhaps not yet acted upon.
    """

    pid: int
    channel: Channel
    pidfd: int | None
    output: ChildOutput | None = None
    board: Board | None = None
    title: str = ""
    started_s: float = field(default_factory=clock.monotonic)
    is_reaped: bool = False

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal to the process, unless it is reaped: the pid may be another's then."""
        if not self.is_reaped:
            os.kill(self.pid, signum)

    def kill_group(self) -> None:
        """Kill what the process has started and left in its group, and the process."""
        if self.is_reaped:
            return
        # PermissionError: macOS answers so where only zombies are left in the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Release the descriptors."""
        self.channel.close()
        if self.output is not None:
            self.output.close()
        if self.board is not None:
            self.board.close()
        if self.pidfd is not None:
            os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor has received a signal."""

    signum: signal.Signals


@dataclass(frozen=True, slots=True)
class Told:
    """A child has sent a message."""

    child: ChildProcess
    message: Message


@dataclass(frozen=True, slots=True)
class Died:
    """A child has died and is reaped.

    Attributes:
        child: the process.
        code: its exit code, or the negative number of the signal that killed it.
        lived_s: from fork to death.
        last: what its board says, None where it had none.
    """

    child: ChildProcess
    code: int
    lived_s: float
    last: BoardState | None = None


Happening = Signalled | Told | Died


def describe_status(code: int) -> str:
    """Return how a process ended, as in "died by SIGKILL" or "exited with code 3"."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"died by {signal.Signals(-code).name}"
    except ValueError:
        return f"died by signal {-code}"
