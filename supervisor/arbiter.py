"""The loop of the supervisor: what happens, and what is done about it.

Everything arrives through `Processes.wait`: signals, messages of children, deaths. Everything
decided by policy is asked of `Fleet`, everything done to its processes is done by `Crew`. What is
left here is the order of things:

    preparing ──▶ running ──▶ stopping ──▶ reporting ──▶ closing ──▶ done

- the runs of a dead worker are released by maintenance, and its replacement is forked at once,
  without waiting for that; a release that is not acknowledged goes to the next maintenance too;
- new code is imported beside the old, and every worker is replaced by one that is ready first;
- workers stop first, maintenance last: leases are renewed while runs finish;
- a second request to stop does not wait for anybody. The database has then been told nothing,
  and leases cover what maintenance cannot release in a moment.
"""

from __future__ import annotations

import enum
import faulthandler
import signal
from typing import TYPE_CHECKING, Any

from flows import clock
from flows.supervisor.console import terminals
from flows.supervisor.crew import Crew
from flows.supervisor.exits import ExitCode
from flows.supervisor.happenings import ChildProcess, Died, Signalled, Told, describe_status
from flows.supervisor.jobs import Prepare, Report
from flows.supervisor.measuring import Measuring
from flows.supervisor.messages import (
    Counted,
    Drained,
    Finishing,
    Measured,
    Message,
    Notice,
    Prepared,
    Progress,
    Ready,
    Refused,
    Released,
    Stuck,
    Unfinished,
)
from flows.supervisor.operations import Operations
from flows.supervisor.reloading import Reloading
from flows.supervisor.stacks import Stacks
from flows.supervisor.watching import Watching

if TYPE_CHECKING:
    from flows.supervisor.child import ChildMain
    from flows.supervisor.generations import Generations
    from flows.supervisor.jobs import Job, WorkflowPlan
    from flows.supervisor.notify import ServiceManager
    from flows.supervisor.plan import Announcer, Level, MaintenanceMain, Plan
    from flows.supervisor.processes import Processes

__all__ = ["STOP", "WISHES", "Arbiter"]

_KILL_MARGIN_S = 12.0
"""What a worker gets beyond the grace period to give its runs back before it is killed: a little
more than its own patience with its committer and its connections."""

_CLOSE_S = 2.0
"""What maintenance gets to release the runs of the last workers, and then to end."""

_CATCH_UP_S = 0.1
"""How often to look whether a stuck stderr takes lines again."""

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that ask the supervisor to end."""

WISHES = (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that ask for something else."""


class _Phase(enum.Enum):
    PREPARING = enum.auto()
    RUNNING = enum.auto()
    STOPPING = enum.auto()
    REPORTING = enum.auto()
    CLOSING = enum.auto()
    DONE = enum.auto()


class Arbiter:
    """Runs the children of a plan until it is done or told to stop.

    Attributes:
        operations: answer what is asked from outside.
        stacks: want to hear what children print.
    """

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        generations: Generations,
        maintenance: MaintenanceMain,
        announcer: Announcer,
        service: ServiceManager,
        measuring: Measuring | None = None,
    ) -> None:
        """Prepare to run.

        Args:
            plan: what to do.
            processes: starts and watches the children.
            generations: of the code; the first one serves already.
            maintenance: makes the main function of maintenance.
            announcer: tells the person who watches.
            service: tells the service manager.
            measuring: tells maintenance what to serve as metrics.
        """
        self._plan = plan
        self._processes = processes
        self._generations = generations
        self._announcer = announcer
        self._phase = _Phase.PREPARING
        self._exit_code: int = ExitCode.OK
        self._task: ChildProcess | None = None
        self._prepared: Prepared | None = None
        self._drained = False
        self._interrupted = False
        self._give_up_s: float | None = None
        self._terminals = terminals()

        self._maintenance = maintenance
        self._measuring = measuring or Measuring()
        self._crew = Crew(plan, processes, generations, self._maintain, self._say, self._measuring)
        self._fleet = self._crew.fleet
        self._service = service
        self._reloading = Reloading(generations, self._crew, self._say, self._service)
        self._watching = Watching(self._crew, self._say)
        self.stacks = Stacks()
        self.operations = Operations(
            plan.app,
            self._crew,
            generations,
            self._reloading,
            self.stacks,
            silence=self._measuring.silence,
            phase=self._phase_name,
            stop=self._stop,
        )

    def run(self) -> int:
        """Work until the end, and return the exit code. Only in the main thread."""
        self._processes.listen((*STOP, *WISHES))
        try:
            self._start_task(Prepare(self._plan.begins), "flows: prepare")
            while self._phase is not _Phase.DONE:
                for happening in self._processes.wait(self._timeout_s()):
                    match happening:
                        case Signalled(signum):
                            self._on_signal(signum)
                        case Told(child, message):
                            self._on_message(child, message)
                        case Died():
                            self._on_death(happening)
                self._act_on_time()
                self._advance()
                self._announcer.catch_up()
            self.operations.finish()
        finally:
            self._processes.kill_all()
        return self._exit_code

    def _phase_name(self) -> str:
        return self._phase.name.lower()

    def _maintain(self) -> ChildMain:
        assert self._prepared is not None
        return self._maintenance(self._prepared, self._workflows)

    @property
    def _workflows(self) -> tuple[WorkflowPlan, ...]:
        assert self._generations.serving is not None
        return self._generations.serving.workflows

    def _start_task(self, job: Job, title: str) -> None:
        try:
            self._task = self._generations.start(self._plan.order(title, job))
        except OSError as error:
            self._say(f"{title.removeprefix('flows: ')} cannot be started: {error}", level="error")
            self._exit_code = ExitCode.INTERNAL
            self._phase = _Phase.CLOSING

    # Time

    def _timeout_s(self) -> float | None:
        moments = [
            self._fleet.next_due_s(),
            self._give_up_s,
            self._reloading.due_s,
            self.stacks.due_s,
            self._service.due_s,
            self._measuring.due_s,
        ]
        if self._phase is _Phase.RUNNING:
            moments.append(self._watching.due_s)
        if self._announcer.is_behind:
            moments.append(clock.monotonic() + _CATCH_UP_S)
        nearest_s = min((moment for moment in moments if moment is not None), default=None)
        return None if nearest_s is None else max(0.0, nearest_s - clock.monotonic())

    def _act_on_time(self) -> None:
        now_s = clock.monotonic()
        self._crew.start_due(now_s)
        self._reloading.act_on_time(now_s)
        self.stacks.act_on_time(now_s)
        self._service.act_on_time(now_s)
        if self._phase is _Phase.RUNNING:
            self._watching.act_on_time(now_s, self._workflows)
        if self._give_up_s is not None and self._give_up_s <= now_s:
            self._give_up_s = None
            self._say("not stopped in time: killing what is left", level="warning")
            self._kill()
        self._measuring.act_on_time(now_s, self._phase_name(), self._fleet)

    # Signals

    def _on_signal(self, signum: signal.Signals) -> None:
        match signum:
            case signal.SIGHUP if not self._terminals <= terminals():
                # From the kernel, or a shell that ends with its terminal: nobody wants a reload.
                if self._phase in (_Phase.PREPARING, _Phase.RUNNING):
                    self._on_stop_signal(signum)
            case signal.SIGHUP | signal.SIGTTIN | signal.SIGTTOU:
                if self._phase is _Phase.RUNNING:
                    self._on_wish(signum)
            case signal.SIGUSR1:
                faulthandler.dump_traceback(all_threads=True)
                self._processes.signal_all(signal.SIGUSR1)
            case _:
                self._on_stop_signal(signum)

    def _on_wish(self, signum: signal.Signals) -> None:
        if signum is signal.SIGHUP:
            self._reloading.begin("received SIGHUP")
            return
        workflow = self._fleet.busiest()
        count = sum(1 for _ in self._fleet.of_workflow(workflow))
        self._crew.scale(workflow, max(1, count + (1 if signum is signal.SIGTTIN else -1)))

    def _on_stop_signal(self, signum: signal.Signals) -> None:
        self._interrupted = True
        if self._phase is _Phase.RUNNING:
            self._stop(f"received {signum.name}")
            if signum is signal.SIGQUIT:
                self._kill()
        elif self._phase is not _Phase.DONE:
            self._say(f"received {signum.name}: stopping at once")
            self._kill()

    def _stop(self, reason: str) -> None:
        """Ask all workers to finish; from here on none is replaced."""
        self._phase = _Phase.STOPPING
        grace_s = self._plan.settings.grace_s
        self._give_up_s = clock.monotonic() + grace_s + _KILL_MARGIN_S
        patience = f", for at most {grace_s:g} s" if self._fleet.crew and not self._drained else ""
        self._say(f"{reason}: stopping{patience}", event="stopping")
        self._service.stopping(reason)
        self._reloading.stop()
        self._crew.stop()

    def _kill(self) -> None:
        """Kill what the present phase waits for."""
        match self._phase:
            case _Phase.STOPPING:
                self._crew.signal(signal.SIGKILL)
            case _Phase.CLOSING if self._fleet.maintenance.member is not None:
                self._fleet.maintenance.member.child.send_signal(signal.SIGKILL)
            case _ if self._task is not None:
                self._task.send_signal(signal.SIGKILL)

    # Messages

    def _on_message(self, child: ChildProcess, message: Message) -> None:
        if self._reloading.on_message(child, message):
            return
        match message:
            case Ready() | Refused() | Released() | Finishing() | Stuck():
                self._crew.on_message(child, message)
                self._tell_service()
            case Prepared():
                self._on_prepared(message)
            case Notice(text, level, event):
                self._say(text, level=level, event=event)
            case Measured(changes):
                self._measuring.add(changes)
            case _:
                self._on_count(message)

    def _on_count(self, message: Message) -> None:
        match message:
            case Counted():
                self.operations.on_counted(message)
            case Progress(unfinished):
                self._announcer.show(unfinished)
                self._give_up_on_broken(unfinished)
            case Drained(failed):
                self._on_drained(failed)

    def _tell_service(self) -> None:
        """Say that the supervisor is ready, as soon as every workflow has a process that is."""
        ready = sum(
            slot.member is not None and slot.member.ready_s is not None
            for slot in self._fleet.slots
        )
        if self._phase is _Phase.RUNNING and ready == len(self._fleet.slots):
            self._service.ready(f"{len(self._workflows)} workflows, {ready - 1} processes")

    def _on_prepared(self, message: Prepared) -> None:
        self._prepared = message
        for key in message.begun:
            self._say(f"begun {key}", event="begun", key=key)

    def _on_drained(self, failed: dict[str, int]) -> None:
        if self._phase is not _Phase.RUNNING:
            return
        self._drained = True
        if failed:
            self._exit_code = ExitCode.FAILED
            counts = ", ".join(f"{name} {count}" for name, count in sorted(failed.items()))
            self._stop(f"drained, with failed runs ({counts})")
        else:
            self._stop("drained")

    def _give_up_on_broken(self, unfinished: Unfinished) -> None:
        left = {name for name, counts in unfinished.items() if any(counts.values())}
        if self._phase is _Phase.RUNNING and left and left.isdisjoint(self._fleet.working):
            self._exit_code = ExitCode.BROKEN
            self._stop(f"only runs of broken workflows are left ({', '.join(sorted(left))})")

    # Deaths

    def _on_death(self, died: Died) -> None:
        self.operations.on_death(died.child)
        if died.child is self._task:
            self._on_task_done(died)
        elif self._reloading.owns(died.child):
            self._reloading.on_death(died)
        else:
            is_running = self._phase is _Phase.RUNNING
            code = self._crew.on_death(
                died,
                workers=is_running,
                maintenance=is_running or self._phase is _Phase.STOPPING,
            )
            if code is not None:
                self._exit_code = code
                self._stop("the start has failed")
            elif broken := self._fleet.broken:
                self._service.status(f"broken: {', '.join(broken)}")

    def _on_task_done(self, died: Died) -> None:
        self._task = None
        if self._phase is _Phase.PREPARING and self._prepared is not None and not died.code:
            self._phase = _Phase.RUNNING
            now_s = clock.monotonic()
            self._fleet.maintenance.due_s = now_s
            self._fleet.shape(self._workflows, now_s)
            if self._plan.reload:
                self._reloading.watch_files(self._processes)
            return
        if died.code < 0 and not self._interrupted:
            text = f"{self._phase.name.lower()}: the process {describe_status(died.code)}"
            self._say(text, level="error", event="died")
            self._exit_code = ExitCode.INTERNAL
        elif died.code > 0 and not self._exit_code:
            self._exit_code = died.code
        self._phase = _Phase.CLOSING

    # Phases

    def _advance(self) -> None:
        """Go on to the next phase if nothing of the present one is left."""
        if self._phase is _Phase.STOPPING and not self._fleet.crew:
            self._report_or_close()
        if self._phase is _Phase.CLOSING:
            self._close()

    def _report_or_close(self) -> None:
        assert self._prepared is not None
        self._give_up_s = None
        if self._drained and self._prepared.begun:
            self._phase = _Phase.REPORTING
            self._start_task(Report(self._prepared.begun), "flows: report")
        else:
            self._phase = _Phase.CLOSING

    def _close(self) -> None:
        maintenance = self._fleet.maintenance
        maintenance.due_s = None
        if maintenance.member is None:
            self._phase = _Phase.DONE
            self._say("stopped", event="stopped")
            return
        if self._give_up_s is None:
            self._give_up_s = clock.monotonic() + _CLOSE_S
        if self._crew.all_released:
            maintenance.member.child.send_signal(signal.SIGTERM)

    def _say(self, text: str, /, *, level: Level = "info", **fields: Any) -> None:
        self._announcer.say(text, level=level, **fields)
