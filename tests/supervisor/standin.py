"""A supervisor whose children only play their parts: no database, no workflow.

Run with a plan as JSON and the descriptor to which the children write what they live through:

    python standin.py '{"workflows": [["good", 1]]}' 5

A workflow's name says how its workers behave.
"""

from __future__ import annotations

import errno
import gc
import itertools
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import threading
import types
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import DBConfig
from flows.errors import ConfigError, DatabaseError
from flows.supervisor import child, processes, template
from flows.supervisor.arbiter import Arbiter
from flows.supervisor.booting import boot_first, templates
from flows.supervisor.console import LineConsole
from flows.supervisor.exits import ExitCode
from flows.supervisor.jobs import (
    Order,
    Prepare,
    Report,
    Settings,
    Work,
    WorkflowPlan,
    read_order,
)
from flows.supervisor.messages import (
    Drained,
    Prepared,
    Progress,
    Ready,
    Refused,
    Release,
    Released,
    Retire,
    Serve,
    Stuck,
)
from flows.supervisor.notify import ServiceManager
from flows.supervisor.plan import Plan
from flows.supervisor.processes import Processes
from flows.supervisor.restart import RestartPolicy

if TYPE_CHECKING:
    from flows.supervisor.child import ChildEnd, ChildMain

OPTIONS: dict[str, Any] = json.loads(sys.argv[1])
DIARY_FD = int(sys.argv[2])


def tell(event: str, who: str, **details: Any) -> None:
    """Write one line; short enough to be atomic."""
    line = json.dumps({"event": event, "who": who, "pid": os.getpid(), **details})
    os.write(DIARY_FD, line.encode() + b"\n")


class StandinApplication:
    """Plays the part of an imported application."""

    @property
    def workflows(self) -> tuple[WorkflowPlan, ...]:
        return tuple(WorkflowPlan(name, count) for name, count in current("workflows"))

    def run(self, order: Order, end: ChildEnd) -> int:
        match order.job:
            case Work(workflow, worker_id):
                return work_as(workflow, worker_id, end)
            case Prepare():
                return prepare(end)
            case Report(keys):
                return report(keys, end)
        raise AssertionError(order.job)


def current(name: str) -> Any:
    """Return an option as it is now: what a reload would find changed stands in a file."""
    path = OPTIONS.get("changes", "")
    changes = json.loads(Path(path).read_text()) if path and Path(path).exists() else {}
    return changes.get(name, OPTIONS.get(name))


def load() -> StandinApplication:
    tell("load", "template")
    disturb_template()
    match current("load"):
        case "refuses":
            raise ConfigError("importing standin failed: SyntaxError")
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            signal.pause()
        case "hesitates":
            Path(OPTIONS["gate"]).read_text()
        case "starts-threads":
            threading.Thread(target=signal.pause, name="of-the-app", daemon=True).start()
    return StandinApplication()


def prepare(end: ChildEnd) -> int:
    tell("prepare", "prepare")
    match OPTIONS.get("prepare"):
        case "refuses":
            raise ConfigError("--begin census: no such workflow")
        case "waits":
            wait_to_stop(end, obey=False)
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "breaks":
            raise AssertionError("nobody foresaw this")
    end.channel.send(Prepared(datetime(2026, 1, 1, tzinfo=UTC), tuple(OPTIONS.get("begun", ()))))
    return 0


def maintenance(_prepared: Prepared, _workflows: tuple[WorkflowPlan, ...]) -> ChildMain:
    return keep_maintaining


def keep_maintaining(end: ChildEnd) -> int:
    end.channel.send(Ready())
    tell("ready", "maintenance")
    if not OPTIONS.get("drain_on_release"):
        tell_of_drain(end)
    while True:
        woken = end.wait()
        for message in woken.messages:
            if isinstance(message, Serve):
                tell("serve", "maintenance", workflows=message.workflows)
                continue
            assert isinstance(message, Release)
            tell("release", "maintenance", worker_id=str(message.worker_id))
            if not OPTIONS.get("deaf"):
                end.channel.send(Released(message.worker_id, 2))
            if OPTIONS.get("drain_on_release"):
                tell_of_drain(end)
        if woken.stop:
            tell("stopped", "maintenance")
            return 0


def tell_of_drain(end: ChildEnd) -> None:
    if "unfinished" in OPTIONS:
        end.channel.send(Progress(OPTIONS["unfinished"]))
    if "drained" in OPTIONS:
        end.channel.send(Drained(OPTIONS["drained"]))


def work_as(name: str, worker_id: uuid.UUID, end: ChildEnd) -> int:
    tell(
        "boot",
        name,
        worker_id=str(worker_id),
        parent=os.getppid(),
        group=os.getpgid(0),
        frozen=gc.get_freeze_count(),
        blocked=[int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    )
    boot(name)
    end.channel.send(Ready())
    assert end.board is not None
    tell("ready", name, worker_id=str(worker_id), random=random.random(), rate=end.board.rate)
    if name == "fast":
        end.board.show_rate(end.board.rate + 4000.0)
        tell("shown", name)
    work(name, end)
    if name == "stuck-when-asked":
        wait_to_stop(end, obey=True)
        end.channel.send(Stuck("a thread is given up"))
    wait_to_stop(end, obey=name not in {"stubborn", "stuck-when-asked"})
    tell("stopped", name)
    return 0


def boot(name: str) -> None:
    if name in {"floods", "chatters"}:
        flood(name) if name == "floods" else chatter(name)
    changed = os.path.exists(OPTIONS.get("marker", ""))  # noqa: PTH110
    match name:
        case "dies-at-boot":
            os._exit(9)
        case "refuses":
            raise ConfigError("this app cannot work")
        case "loses-database" if changed:
            raise DatabaseError("cannot connect to the database: gone")
        case "hesitates" if changed:
            Path(OPTIONS["gate"]).read_text()
        case "refuses-later" if changed:
            raise ConfigError("the app has changed")


def flood(name: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    tell("booted", name)
    signal.sigwait({signal.SIGUSR2})
    for _ in range(100_000):
        sys.stdout.write("x" * 99 + "\n")
    tell("flooded", name)
    # The line that tells of the others.
    while not select.select([], [1], [], 10)[1]:
        pass
    sys.stdout.write("and on\n")


def chatter(name: str) -> None:
    sys.stdout.write("by print\n")
    os.write(2, b"by a descriptor\n")
    subprocess.run(["/bin/echo", "by a program"], check=True)
    logging.getLogger("app").warning("by logging")
    blocking = [os.get_blocking(1), os.get_blocking(2)]
    tell("descriptors", name, blocking=blocking)


def work(name: str, end: ChildEnd) -> None:
    match name:
        case "dies-when-ready":
            if OPTIONS.get("lease_lost"):
                end.channel.send(Refused(ExitCode.LEASE_LOST, "the lease ran out"))
            os._exit(3)
        case "leaves-a-grandchild" if os.fork() == 0:
            # Nobody ends it where what is tested does not work.
            signal.alarm(30)
            tell("grandchild", name)
            signal.pause()
        case "wedged":
            while True:
                signal.pause()
        case "prints":
            sys.stdout.write("half a line")


def wait_to_stop(end: ChildEnd, *, obey: bool) -> None:
    while True:
        woken = end.wait()
        if any(isinstance(message, Retire) for message in woken.messages):
            tell("retired", "child")
            if obey:
                return
        if woken.stop:
            tell("asked", "child")
            if obey:
                return


def report(keys: tuple[str, ...], end: ChildEnd) -> int:
    tell("report", "report", keys=list(keys))
    if OPTIONS.get("report") == "fails":
        raise DatabaseError("cannot connect to the database: gone")
    return 0


def main() -> int:
    settings = Settings("", DBConfig(), uuid.uuid4(), OPTIONS.get("grace_s", 5.0))
    plan = Plan(
        app="standin:registry",
        settings=settings,
        drain="drained" in OPTIONS or "unfinished" in OPTIONS,
        restart=RestartPolicy(**OPTIONS.get("restart", {})),
    )
    console = LineConsole()
    processes = Processes(console.pass_on)
    generations = templates(processes, load, plan.app)
    failed = boot_first(processes, generations)
    if failed is not None:
        return failed.code
    code = Arbiter(
        plan, processes, generations, maintenance, console, ServiceManager(os.environ)
    ).run()
    processes.close()
    console.close()
    assert code in set(ExitCode)
    return code


def disturb() -> None:
    """Arrange what a platform or an application may bring along."""
    if OPTIONS.get("without_pidfd"):
        processes._HAS_PIDFD = False
    if OPTIONS.get("pidfd_fails"):
        os.pidfd_open = refuse_pidfd
    if OPTIONS.get("without_death_signal"):
        child._libc = None
    if OPTIONS.get("unflushed"):
        sys.stdout.write(OPTIONS["unflushed"])
    if OPTIONS.get("fork_fails"):
        refuse_forks(OPTIONS["fork_fails"], [])


def refuse_pidfd(pid: int, flags: int = 0) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def disturb_template() -> None:
    """Arrange what an application may bring along."""
    if OPTIONS.get("handlers_of_the_app"):
        signal.signal(signal.SIGUSR2, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if OPTIONS.get("numpy"):
        # As far as it matters here: a generator that a fork does not seed by itself.
        drawn = types.SimpleNamespace(seed=lambda: tell("seeded", "numpy"))
        sys.modules["numpy.random"] = drawn  # type: ignore[assignment]
    if OPTIONS.get("unreadable_orders"):
        vars(template)["read_order"] = read_no_work
    if OPTIONS.get("template_fork_fails"):
        refuse_forks(OPTIONS["template_fork_fails"], OPTIONS.get("middle_fork_fails", []))


def read_no_work(fd: int) -> Order:
    order = read_order(fd)
    assert not isinstance(order.job, Work), "this order cannot be read"
    return order


def refuse_forks(which: list[int], which_in_children: list[int]) -> None:
    """Refuse some forks of this process, and those within the children of some others."""
    fork, me, done = os.fork, os.getpid(), itertools.count(1)
    last = 0

    def fork_or_refuse() -> int:
        nonlocal last
        if os.getpid() == me:
            last = next(done)
        if last in (which if os.getpid() == me else which_in_children):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = fork_or_refuse


if __name__ == "__main__":
    disturb()
    sys.exit(main())
