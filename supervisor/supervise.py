"""`flows supervise`: from what was asked to a running supervisor."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from setproctitle import setproctitle

from flows.config import DBConfig
from flows.embedded import open_database
from flows.errors import ConfigError
from flows.supervisor.address import listen, url_of
from flows.supervisor.application import check_target
from flows.supervisor.arbiter import STOP, WISHES, Arbiter
from flows.supervisor.booting import boot_first, make_generations
from flows.supervisor.console import LineConsole, open_console
from flows.supervisor.control import ControlServer, bind, default_path
from flows.supervisor.draining import DrainWatch
from flows.supervisor.exits import ExitCode
from flows.supervisor.jobs import Begin, Settings, Target, WorkflowPlan
from flows.supervisor.maintenance import MaintenanceProgram
from flows.supervisor.measuring import Measuring
from flows.supervisor.notify import ServiceManager
from flows.supervisor.plan import Plan
from flows.supervisor.processes import CAN_ADOPT, Processes
from flows.supervisor.reloading import warn_of
from flows.supervisor.signals import Interrupted, interruptible
from flows.supervisor.streams import LogStyle
from flows.supervisor.watching_files import check_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flows.embedded import Database
    from flows.supervisor.child import ChildMain
    from flows.supervisor.generations import Generations
    from flows.supervisor.messages import Prepared

__all__ = ["Request", "StartMethod", "supervise"]

StartMethod = Literal["fork", "spawn"]
"""Where children come from: a template that has imported the app, or an interpreter each."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes:
        target: the registry, as `module:attribute`.
        dsn: the database; None leaves it to the environment, then to the embedded one.
        listen_dsn: the same one past a pooler; None leaves it to the environment.
        config: where the tables are.
        grace_s: how long running attempts may take to finish once asked to stop.
        poll_s: how rarely a worker that finds nothing looks for runs of which it was not told.
        only: the workflows to run; empty means all.
        begins: runs to begin first.
        drain: end when no run is unfinished.
        start_method: where children come from; None for what suits the platform.
        log: how the supervisor and its children log.
        reload: reload when files of the application change.
        control: where commands are heard; None for a place of its own in `.flows`.
        metrics: where metrics are served, as HOST:PORT; None for nowhere.
        debug: print tracebacks.
    """

    target: str
    dsn: str | None = None
    listen_dsn: str | None = None
    config: DBConfig = DBConfig()  # noqa: RUF009  immutable
    grace_s: float = 30.0
    poll_s: float = 180.0
    only: tuple[str, ...] = ()
    begins: tuple[Begin, ...] = ()
    drain: bool = False
    start_method: StartMethod | None = None
    log: LogStyle = LogStyle()  # noqa: RUF009  immutable
    reload: bool = False
    control: Path | None = None
    metrics: str | None = None
    debug: bool = False


def supervise(request: Request) -> int:
    """Run the workflows of an application until done or told to stop; return the exit code.

    Raises:
        ConfigError: the application or an option cannot work.
        EmbeddedError: the embedded database cannot be started.
    """
    setproctitle(f"flows: supervisor {request.target}")
    _open_standard_streams()
    with interruptible(STOP, WISHES):
        try:
            check_target(request.target)
            # Before anything is started that would have to be stopped again.
            with listen(request.metrics) as listener:
                return _supervise(request, Measuring(listener))
        except Interrupted as early:
            LineConsole(request.log).say(f"received {early.signum.name}: nothing was started yet")
            return ExitCode.OK


def _open_standard_streams() -> None:
    """Open what is closed of stdin, stdout and stderr, as some programs start others.

    Otherwise a socket or a pipe gets such a number, and what is printed goes into that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115  for the life of the process


def _supervise(request: Request, measuring: Measuring) -> int:
    target = Target(request.target, request.only, tuple(begin.name for begin in request.begins))
    if request.reload:
        check_installed()
    # Before anything is started: children must not find in the environment what is ours.
    service = ServiceManager(os.environ)
    console = open_console(request.log, drain=request.drain)
    hearers: list[Callable[[int, str], None]] = []

    def hear(title: str, pid: int, line: str) -> None:
        console.pass_on(title.removeprefix("flows: "), pid, line)
        for each in hearers:
            each(pid, line)

    processes = Processes(hear, request.log, debug=request.debug)
    if measuring.listener is not None:
        processes.keep(measuring.listener)
    generations = make_generations(
        processes, target, _start_method(request.start_method), request.log, debug=request.debug
    )
    try:
        failed = boot_first(processes, generations)
        if failed is not None:
            console.say(failed.reason, level="error", event="start_failed")
            return failed.code
        with open_database(request.dsn, listen=request.listen_dsn) as database:
            arbiter = _arbiter(
                request, processes, generations, database, console, service, measuring
            )
            if measuring.listener is not None:
                console.say(f"metrics are served at {url_of(measuring.listener)}")
            hearers.append(arbiter.stacks.hear)
            with _control(request.control, processes, arbiter, console):
                return arbiter.run()
    finally:
        generations.close()
        processes.kill_all()
        processes.close()
        console.close()
        service.close()
        sys.stderr.flush()


@contextlib.contextmanager
def _control(
    wanted: Path | None, processes: Processes, arbiter: Arbiter, console: LineConsole
) -> Iterator[None]:
    """Listen for commands; where no place was named and there is none, go on without."""
    path = (wanted or default_path()).absolute()
    try:
        listener = bind(path)
    except ConfigError as error:
        if wanted is not None:
            raise
        text = f"no commands are heard (flows status and others): {error}"
        console.say(text, level="warning")
        yield
        return
    server = ControlServer(processes, listener, path, arbiter.operations.answer, console.say)
    try:
        yield
    finally:
        server.close()


def _arbiter(
    request: Request,
    processes: Processes,
    generations: Generations,
    database: Database,
    console: LineConsole,
    service: ServiceManager,
    measuring: Measuring,
) -> Arbiter:
    for thread in generations.threads:
        console.say(warn_of(thread), level="warning")
    settings = Settings(
        database.dsn,
        request.config,
        uuid.uuid4(),
        request.grace_s,
        request.poll_s,
        database.is_embedded,
        database.listen_dsn,
        measuring.listener is not None,
    )
    plan = Plan(
        request.target,
        settings,
        request.begins,
        request.drain,
        request.reload,
        request.log,
        request.debug,
    )

    def maintenance(prepared: Prepared, workflows: tuple[WorkflowPlan, ...]) -> ChildMain:
        names = tuple(each.name for each in workflows)
        watch = DrainWatch(settings.config, names) if request.drain else None
        program = MaintenanceProgram(
            settings.dsn,
            settings.listen_dsn,
            settings.config,
            settings.supervisor_id,
            names,
            settings.poll_s,
            watch,
            {e.name: e.retention_s for e in workflows if e.retention_s is not None},
            measuring,
        )
        return program(prepared)

    console.say(f"supervising {request.target} on {_describe(database.source)}")
    return Arbiter(plan, processes, generations, maintenance, console, service, measuring)


def _start_method(wanted: StartMethod | None) -> StartMethod:
    if wanted == "fork" and not CAN_ADOPT:
        raise ConfigError(
            "--start-method fork needs Linux: elsewhere a forked process cannot be handed over"
            " to the supervisor; use spawn"
        )
    return wanted or ("fork" if CAN_ADOPT else "spawn")


def _describe(source: str) -> str:
    return "the embedded database" if source == "embedded" else f"the database of {source}"
