"""What the control socket can ask for, carried out on a running supervisor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from flows import clock
from flows.supervisor.messages import Count, Counted
from flows.supervisor.recycling import resident_bytes
from flows.supervisor.state import ExecutingState, ProcessState, SupervisorState

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.control import Reply, Request
    from flows.supervisor.crew import Crew
    from flows.supervisor.fleet import Member, Slot
    from flows.supervisor.generations import Generations
    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.reloading import Reloading
    from flows.supervisor.silence import Silence
    from flows.supervisor.stacks import Stacks

__all__ = ["Operations"]


class Operations:
    """Answers requests."""

    def __init__(
        self,
        app: str,
        crew: Crew,
        generations: Generations,
        reloading: Reloading,
        stacks: Stacks,
        *,
        silence: Silence,
        phase: Callable[[], str],
        stop: Callable[[str], None],
    ) -> None:
        """Prepare to answer.

        Args:
            app: as it was given.
            crew: the processes.
            generations: of the code.
            reloading: carries out reloads.
            stacks: asks processes where they are.
            silence: tells how long the database has not answered.
            phase: tells what the supervisor is doing.
            stop: begins to stop the supervisor.
        """
        self._app = app
        self._crew = crew
        self._generations = generations
        self._reloading = reloading
        self._stacks = stacks
        self._silence = silence
        self._phase = phase
        self._stop = stop
        self._since_s = clock.monotonic()
        self._leaving: list[Reply] = []
        self._counting: list[Reply] = []
        self._counter: ChildProcess | None = None

    def answer(self, request: Request, reply: Reply) -> None:
        """Carry out a request."""
        actions: dict[str, Callable[[Request, Reply], None]] = {
            "status": self._status,
            "restart": self._restart,
            "scale": self._scale_to,
            "reload": self._reload,
            "drain": self._drain,
            "stacks": self._show_stacks,
            "queues": self._queues,
        }
        action = actions.get(request.do)
        if action is None:
            reply.refuse(f"no such request: {request.do!r} (but {', '.join(actions)})")
        elif request.do not in {"status", "stacks", "queues"} and self._phase() != "running":
            reply.refuse(f"the supervisor is {self._phase()}")
        else:
            action(request, reply)

    def finish(self) -> None:
        """Tell those who wait for the end that it has come."""
        for reply in self._leaving:
            reply.done()

    def state(self) -> SupervisorState:
        """Return the state of the supervisor."""
        fleet, now_s = self._crew.fleet, clock.monotonic()
        processes = [
            _of_slot(slot, member, now_s)
            for slot in fleet.slots
            for member in (slot.members or (None,))
        ]
        processes += [_of_member(member, "retiring", now_s) for member in fleet.leaving]
        return SupervisorState(
            self._app,
            os.getpid(),
            self._phase(),
            self._generations.number,
            now_s - self._since_s,
            tuple(processes),
            self._silence.lasts_s,
        )

    def _status(self, _: Request, reply: Reply) -> None:
        reply.done(status=msgspec.to_builtins(self.state()))

    def _queues(self, _: Request, reply: Reply) -> None:
        maintenance = self._crew.fleet.maintenance.member
        if maintenance is None or maintenance.ready_s is None:
            reply.refuse("there is no maintenance process to count just now")
            return
        silent_s = self._silence.lasts_s
        if silent_s is not None:
            reply.refuse(f"the database has not answered for {silent_s:.0f} s")
            return
        self._counting.append(reply)
        if len(self._counting) == 1:
            self._counter = maintenance.child
            names = dict.fromkeys(str(slot.workflow) for slot in self._crew.fleet.workers)
            maintenance.child.channel.send(Count(tuple(names)))

    def on_counted(self, counted: Counted) -> None:
        """Tell those who have asked how many runs are unfinished, or why nobody knows."""
        waiting, self._counting = self._counting, []
        for reply in waiting:
            if counted.refused is None:
                reply.done(queues=counted.unfinished)
            else:
                reply.refuse(counted.refused)

    def on_death(self, child: ChildProcess) -> None:
        """Tell those whose question a process has taken along with it."""
        if child is self._counter:
            self._counter = None
            self.on_counted(Counted({}, "maintenance has ended before it had counted; ask again"))

    def _workflow(self, request: Request, reply: Reply) -> str | None:
        """Return the workflow that is asked for, having refused one that is not run."""
        known = list(dict.fromkeys(str(slot.workflow) for slot in self._crew.fleet.workers))
        if request.name in known:
            return request.name
        reply.refuse(f"no workflow {request.name!r} is run here (but {', '.join(known)})")
        return None

    def _restart(self, request: Request, reply: Reply) -> None:
        name = self._workflow(request, reply)
        if name is None:
            return
        fleet, now_s = self._crew.fleet, clock.monotonic()
        fleet.mend(name)
        members, fresh = [], []
        for slot in fleet.of_workflow(name):
            if slot.member is None:
                slot.due_s = now_s
                fresh.append(slot)
            else:
                members.append(slot.member)
        counts = {"replaced": len(members), "started": len(fresh)}

        def done(failure: str | None) -> None:
            if failure is None:
                reply.done(**counts)
            else:
                reply.refuse(f"{failure}; what is not replaced yet goes on")

        self._crew.roll_out(members, done, fresh)

    def _scale_to(self, request: Request, reply: Reply) -> None:
        name = self._workflow(request, reply)
        if name is None:
            return
        if request.processes is None or request.processes < 1:
            reply.refuse("a workflow has one process at least")
            return
        self._crew.scale(name, request.processes)
        reply.done(processes=request.processes)

    def _reload(self, _: Request, reply: Reply) -> None:
        def done(failure: str | None) -> None:
            if failure is None:
                reply.done(generation=self._generations.number)
            else:
                reply.refuse(failure)

        self._reloading.begin("asked for a reload", done)

    def _drain(self, _: Request, reply: Reply) -> None:
        self._leaving.append(reply)
        self._stop("asked to drain")

    def _show_stacks(self, request: Request, reply: Reply) -> None:
        if request.name is not None and self._workflow(request, reply) is None:
            return
        members = [
            member
            for member in self._crew.fleet.crew
            if request.name is None or member.workflow == request.name
        ]
        maintenance = self._crew.fleet.maintenance.member
        if request.name is None and maintenance is not None:
            members.append(maintenance)
        children = {member.child: f"{member.name} (pid {member.child.pid})" for member in members}
        self._stacks.ask(children, lambda stacks: reply.done(stacks=stacks))


def _of_slot(slot: Slot, member: Member | None, now_s: float) -> ProcessState:
    if member is None:
        return ProcessState(
            slot.name,
            slot.workflow,
            "broken" if slot.broken else "waiting",
            due_s=None if slot.due_s is None else max(0.0, slot.due_s - now_s),
            restarts=slot.restarts,
            last_exit=slot.last_exit,
        )
    state = _of_member(member, "booting" if member.ready_s is None else "ready", now_s)
    return msgspec.structs.replace(
        state, workflow=slot.workflow, restarts=slot.restarts, last_exit=slot.last_exit
    )


def _of_member(member: Member, state: str, now_s: float) -> ProcessState:
    child = member.child
    board = None if child.board is None else child.board.read()
    return ProcessState(
        member.name,
        member.workflow or None,
        state,
        child.pid,
        member.generation or None,
        now_s - child.started_s,
        executors=0 if board is None else len(board.executing),
        executing=()
        if board is None
        else tuple(
            ExecutingState(
                each.run_id,
                each.attempt,
                now_s - each.since_s,
                each.step,
                None if each.step is None else now_s - each.step_since_s,
            )
            for each in board.executing
            if each is not None
        ),
        finished=0 if board is None else board.finished,
        rss=resident_bytes(child.pid),
        silent_s=now_s - board.heartbeat_s if board is not None and board.heartbeat_s else None,
    )
