"""What the supervisor and its children tell each other, and the socket it goes through.

    template     ─▶ supervisor   Loaded, Refused
    prepare      ─▶ supervisor   Prepared, Refused
    worker       ─▶ supervisor   Ready, Finishing, Refused, Stuck, Measured
    supervisor   ─▶ worker       Retire
    maintenance  ─▶ supervisor   Ready, Refused, Notice, Released, Progress, Drained
    maintenance  ─▶ supervisor   Counted
    watcher      ─▶ supervisor   Changed
    supervisor   ─▶ maintenance  Count; Serve; Release, again to a new process until acknowledged
    supervisor   ─▶ maintenance  Measured, Standing

One JSON document a line. A socket that ends tells a child that its supervisor is gone.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec

from flows.crashes import Charge
from flows.metrics import Changes
from flows.supervisor.exits import ExitCode
from flows.supervisor.jobs import WorkflowPlan

if TYPE_CHECKING:
    import socket

__all__ = [
    "Changed",
    "Channel",
    "Count",
    "Counted",
    "Drained",
    "Finishing",
    "Loaded",
    "Measured",
    "Message",
    "Notice",
    "Prepared",
    "Progress",
    "Ready",
    "Refused",
    "Release",
    "Released",
    "Retire",
    "Serve",
    "Standing",
    "Stuck",
]

Unfinished = dict[str, dict[str, int]]
"""Unfinished runs: workflow, then status, then how many."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child does its work from now on; a worker can claim."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The application is imported.

    Attributes:
        workflows: what is registered, as far as it is to be run.
        threads: names of threads that the import has started, and that no child will have.
        roots: files and folders of its source.
    """

    workflows: tuple[WorkflowPlan, ...]
    threads: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The child cannot work, and will exit with `code`."""

    code: ExitCode
    reason: str


class Notice(msgspec.Struct, frozen=True, tag=True):
    """Something that whoever watches should know; `event` names it for programs."""

    text: str
    level: Literal["info", "warning", "error"] = "info"
    event: str | None = None


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """The schema is there, and the runs of `--begin` are committed.

    Attributes:
        since: the database's time before they were begun.
        begun: their keys, in the order of the options.
    """

    since: datetime
    begun: tuple[str, ...] = ()


class Release(msgspec.Struct, frozen=True, tag=True):
    """This worker is dead: give its runs back.

    Attributes:
        worker_id: who it is.
        charge: what those of its runs are charged with that it was executing; None if nobody is.
    """

    worker_id: UUID
    charge: Charge | None = None


class Released(msgspec.Struct, frozen=True, tag=True):
    """The runs of a dead worker are claimable again.

    Attributes:
        worker_id: who it was.
        runs: how many there were, suspects included.
        suspects: keys of those that are to be executed alone.
        failed: keys of those that were executed too often.
    """

    worker_id: UUID
    runs: int
    suspects: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Retire(msgspec.Struct, frozen=True, tag=True):
    """Another process takes this one's place: claim nothing more, end when what runs has ended."""


class Finishing(msgspec.Struct, frozen=True, tag=True):
    """Somebody has asked this worker to finish, by a signal: it ends, and has not crashed."""


class Stuck(msgspec.Struct, frozen=True, tag=True):
    """A thread of this worker was given up: it should be replaced. `what` says whose run it was."""

    what: str


class Measured(msgspec.Struct, frozen=True, tag=True):
    """What was counted since the last time, for metrics; to a new process, since the start."""

    changes: Changes


class Standing(msgspec.Struct, frozen=True, tag=True):
    """How the supervisor stands, for metrics.

    Attributes:
        phase: what it does.
        processes: of the workers: workflow, then state, then how many.
    """

    phase: str
    processes: dict[str, dict[str, int]]


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How much of a drain is left."""

    unfinished: Unfinished


class Count(msgspec.Struct, frozen=True, tag=True):
    """Tell how many runs of these workflows are unfinished."""

    workflows: tuple[str, ...]


class Counted(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Count`; `refused` says why there is none."""

    unfinished: Unfinished
    refused: str | None = None


class Serve(msgspec.Struct, frozen=True, tag=True):
    """From here on, these workflows are run: fire their schedules, delete what they keep no more.

    Attributes:
        workflows: their names.
        keep_s: how many seconds they keep runs that have ended, of those that do not for ever.
    """

    workflows: tuple[str, ...]
    keep_s: dict[str, float] = {}


class Changed(msgspec.Struct, frozen=True, tag=True):
    """Files of the application have changed."""

    paths: tuple[str, ...]


class Drained(msgspec.Struct, frozen=True, tag=True):
    """No run is unfinished; `failed` counts the runs that failed meanwhile, by workflow."""

    failed: dict[str, int]


Message = (
    Loaded
    | Ready
    | Refused
    | Notice
    | Prepared
    | Release
    | Released
    | Retire
    | Finishing
    | Progress
    | Count
    | Counted
    | Drained
    | Changed
    | Serve
    | Stuck
    | Measured
    | Standing
)

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class Channel:
    """One end of the socket between the supervisor and a child. Never blocks.

    What the other end does not take is kept and goes out with the next call of `send` or
    `flush`: only a process that has stopped reading falls that far behind, and both ends wake
    up again for other reasons.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to `receive`."""
        return self._socket.fileno()

    @property
    def backlog(self) -> int:
        """How many bytes the other end has not taken."""
        return len(self._outgoing)

    def send(self, message: Message) -> None:
        """Send a message, as soon as the other end takes it."""
        self._outgoing += msgspec.json.encode(message) + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what is left of earlier messages; drops it where the channel was closed."""
        if self.fileno() < 0:
            # The process was reaped, and what it was to others is about to be cleared up.
            self._outgoing.clear()
            return
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            # The process is dying; its death is noticed and acted on elsewhere.
            self._outgoing.clear()

    def receive(self) -> list[Message]:
        """Return the messages that have arrived; sets `closed` when there will be no more."""
        try:
            while data := self._socket.recv(65536):
                self._incoming += data
            self.closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.closed = True
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = bytearray(rest)
        return [_decoder.decode(line) for line in lines]

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()
