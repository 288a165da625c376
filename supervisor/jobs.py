"""What a child is started for: data, since it may have to travel into a fresh interpreter."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

from flows.config import DBConfig
from flows.supervisor.streams import LogStyle

if TYPE_CHECKING:
    from flows.supervisor.child import ChildEnd

__all__ = [
    "Application",
    "Begin",
    "Inspect",
    "Job",
    "Order",
    "Prepare",
    "Report",
    "Settings",
    "Target",
    "Work",
    "WorkflowPlan",
    "read_order",
    "write_order",
]


class WorkflowPlan(msgspec.Struct, frozen=True):
    """How the processes of a workflow are to be run, as it is registered.

    Attributes:
        name: of the workflow.
        processes: how many.
        concurrency: executors in each.
        max_runs: after so many finished attempts a process is replaced; None for never.
        max_age_s: after so long.
        max_rss: when it holds so many bytes of memory.
        hang_timeout_s: killed when no Python has run in it for so long; None for never.
        max_crashes: a run fails when its process has died so often while it ran.
        retention_s: how long its runs are kept when they have ended; None for ever.
        pinned: whether each of its processes keeps to one core.
    """

    name: str
    processes: int = 1
    concurrency: int = 1
    max_runs: int | None = None
    max_age_s: float | None = None
    max_rss: int | None = None
    hang_timeout_s: float | None = None
    max_crashes: int = 3
    retention_s: float | None = None
    pinned: bool = False


class Begin(msgspec.Struct, frozen=True):
    """A run to begin, as `--begin` names it.

    Attributes:
        name: the workflow.
        document: its input as JSON; None where none was given.
    """

    name: str
    document: str | None = None


class Target(msgspec.Struct, frozen=True):
    """Which workflows of which application.

    Attributes:
        app: the registry, as `module:attribute`.
        only: the workflows to run; empty means all.
        needed: workflows that must be among them.
    """

    app: str
    only: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """What all children of a supervisor have in common.

    Attributes:
        dsn: the database.
        config: where the tables are.
        supervisor_id: whose maintenance process keeps their leases.
        grace_s: how long running attempts may take to finish once asked to stop.
        poll_s: how rarely a worker that finds nothing looks for runs of which it was not told.
        may_migrate: whether the database is ours to migrate, as the embedded one is.
        listen_dsn: the same database past a pooler, None where there is none.
        is_measured: whether workers count what they do.
    """

    dsn: str
    config: DBConfig
    supervisor_id: UUID
    grace_s: float = 30.0
    poll_s: float = 180.0
    may_migrate: bool = False
    listen_dsn: str | None = None
    is_measured: bool = False


class Work(msgspec.Struct, frozen=True, tag=True):
    """Execute runs of one workflow.

    Attributes:
        workflow: its name.
        worker_id: the worker's identity in the database.
        executors: how many there are.
        rate: how many runs a second the process did whose place this one takes; 0 if unknown.
        core: the number of the only core it is to use; None for any.
    """

    workflow: str
    worker_id: UUID
    executors: int = 1
    rate: float = 0.0
    core: int | None = None


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """See to the tables, and begin runs: all of them or none."""

    begins: tuple[Begin, ...] = ()


class Inspect(msgspec.Struct, frozen=True, tag=True):
    """Tell which workflows the application has, and end."""


class Report(msgspec.Struct, frozen=True, tag=True):
    """Print the outputs of these runs."""

    keys: tuple[str, ...]


Job = Work | Inspect | Prepare | Report


class Order(msgspec.Struct, frozen=True):
    """A child to be started.

    Attributes:
        title: what `ps` shows.
        job: what it is to do.
        settings: where.
        supervisor_pid: whose child it is.
        log: how it logs.
        debug: print the traceback of whatever ends it.
    """

    title: str
    job: Job
    settings: Settings
    supervisor_pid: int
    log: LogStyle = LogStyle()
    debug: bool = False

    @property
    def keeps_stdout(self) -> bool:
        """Whether its stdout is the supervisor's: results go there."""
        return isinstance(self.job, Report)


class Application(Protocol):
    """An application that has been imported, as its children need it."""

    @property
    def workflows(self) -> tuple[WorkflowPlan, ...]:
        """The workflows to run."""
        ...

    def run(self, order: Order, end: ChildEnd) -> int:
        """Do a job, and return the exit code of its process."""
        ...


def write_order(order: Order) -> int:
    """Return the descriptor of an unnamed file with an order in it: a socket could be too small."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(msgspec.json.encode(order))
        file.seek(0)
        return os.dup(file.fileno())


def read_order(fd: int) -> Order:
    """Read an order and close its file."""
    with open(fd, "rb") as file:
        return msgspec.json.decode(file.read(), type=Order)
