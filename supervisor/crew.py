"""The processes of the fleet: started, replaced, retired, released.

A rollout replaces members one after another: the successor becomes ready first, then the one
before it retires. It claims nothing more and ends when its runs have ended, however long they
take; a successor that cannot boot ends the rollout, and costs nothing but itself.
"""

from __future__ import annotations

import signal
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows import clock
from flows.ids import RunKey
from flows.metrics import CRASHES, MAINTENANCE_RESTARTS, RECOVERY_SECONDS, RESTARTS, RUNS_ENDED
from flows.supervisor import cores
from flows.supervisor.blame import blame, cause_of, is_crash
from flows.supervisor.fleet import Broken, Fleet, Member, Restart, StartFailed
from flows.supervisor.happenings import describe_status
from flows.supervisor.jobs import Work
from flows.supervisor.memory import OomKills
from flows.supervisor.messages import (
    Finishing,
    Refused,
    Release,
    Released,
    Retire,
    Serve,
    Stuck,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flows.supervisor.child import ChildMain
    from flows.supervisor.exits import ExitCode
    from flows.supervisor.fleet import Slot
    from flows.supervisor.generations import Generations
    from flows.supervisor.happenings import ChildProcess, Died
    from flows.supervisor.measuring import Measuring
    from flows.supervisor.messages import Ready
    from flows.supervisor.plan import Plan, Say
    from flows.supervisor.processes import Processes

__all__ = ["Crew", "Rollout"]


@dataclass(eq=False, slots=True)
class Rollout:
    """Members that are to be replaced.

    Attributes:
        waiting: the members whose turn has not come.
        done: called at the end, with what went wrong, or None.
        fresh: places whose first process is still to become ready.
        failure: why it ends as soon as no successor boots.
    """

    waiting: deque[Member]
    done: Callable[[str | None], None]
    fresh: set[Slot | None] = field(default_factory=set)
    failure: str | None = None


class Crew:
    """What is done to the processes of a fleet; decides nothing that `Fleet` can decide."""

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        generations: Generations,
        maintenance: Callable[[], ChildMain],
        say: Say,
        measuring: Measuring,
    ) -> None:
        """Make a crew of nobody.

        Args:
            plan: what the supervisor is to do.
            processes: starts maintenance.
            generations: start workers.
            maintenance: makes the main function of maintenance.
            say: tells of an event.
            measuring: counts what happens to them.
        """
        self.fleet = Fleet.of(plan.restart)
        self._plan = plan
        self._processes = processes
        self._generations = generations
        self._maintenance = maintenance
        self._say = say
        self._measuring = measuring
        self._rollouts: deque[Rollout] = deque()
        self._unreleased: dict[uuid.UUID, tuple[str, Release]] = {}
        self._oom_kills = OomKills()
        self._is_stopping = False

    @property
    def all_released(self) -> bool:
        """Whether maintenance has acknowledged all releases."""
        return not self._unreleased

    # Starting

    def fill(self, slot: Slot) -> None:
        """Start the process of an empty slot; a system that refuses is asked again later."""
        try:
            member = self._start(slot)
        except OSError as error:
            wait_s = max(0.05, slot.backoff.next_s(0.0))
            slot.due_s = clock.monotonic() + wait_s
            self._say(
                f"{slot.name} cannot be forked: {error}; trying again in {wait_s:.1f} s",
                level="warning",
                event="not_started",
                workflow=slot.workflow,
            )
            self._fail_rollouts(slot, f"{slot.name} cannot be forked: {error}")
            return
        slot.fill(member)
        if slot is self.fleet.maintenance:
            self._measuring.begin(member.child.channel)
            for _, release in self._unreleased.values():
                member.child.channel.send(release)

    def _start(self, slot: Slot) -> Member:
        title = f"flows: {slot.name}"
        if slot.workflow is None:
            child = self._processes.fork(
                self._maintenance(), title=title, lent=self._measuring.listener
            )
            member = Member(slot.name, child)
        else:
            worker_id = uuid.uuid4()
            executors = self._generations.plan_of(slot.workflow).concurrency
            core = self._core_for(slot)
            job = Work(slot.workflow, worker_id, executors, slot.known_rate(), core)
            child = self._generations.start(self._plan.order(title, job))
            number = self._generations.number
            member = Member(slot.name, child, slot.workflow, worker_id, number, core)
        on = "" if member.core is None else f", core {member.core}"
        self._say(f"{slot.name} started (pid {child.pid}{on})", event="started", **member.facts)
        return member

    def _core_for(self, slot: Slot) -> int | None:
        """Return the core for the next process of a slot: that of the one before, if it has any."""
        assert slot.workflow is not None
        if not self._generations.plan_of(slot.workflow).pinned:
            return None
        available = cores.available()
        if slot.member is not None and slot.member.core in available:
            return slot.member.core
        return cores.least_used(available, [each.core for each in self.fleet.crew])

    def start_due(self, now_s: float) -> None:
        """Start what is due."""
        for slot in self.fleet.due(now_s):
            self.fill(slot)
        self._continue_rollouts()

    # Messages

    def on_message(
        self, child: ChildProcess, message: Ready | Refused | Released | Finishing | Stuck
    ) -> None:
        """Take in what a process of the fleet, or one that never came so far, has said."""
        found = self.fleet.find(child)
        if isinstance(message, Released):
            self._on_released(message)
        elif isinstance(message, Refused):
            if found is not None:
                found[1].refused = message
            name, facts = (found[1].name, found[1].facts) if found else ("error", {})
            self._say(f"{name}: {message.reason}", level="error", event="refused", **facts)
        elif found is not None and isinstance(message, Finishing):
            found[1].finishing = True
        elif found is not None and isinstance(message, Stuck):
            self._on_stuck(found[1], message.what)
        elif found is not None:
            self._on_ready(*found)

    def _on_ready(self, slot: Slot | None, member: Member) -> None:
        now_s = clock.monotonic()
        after_s = round(now_s - member.child.started_s, 2)
        self._say(f"{member.name} ready in {after_s:.2f} s", event="ready", **member.facts)
        for rollout in self._rollouts:
            rollout.fresh.discard(slot)
        before = None if slot is None else slot.became_ready(member, now_s)
        if slot is not None and slot.died_s is not None:
            if slot.workflow is not None:
                self._measuring.observe(RECOVERY_SECONDS, now_s - slot.died_s, slot.workflow)
            slot.died_s = None
        if before is not None:
            self.retire([before], "replaced")

    def _on_stuck(self, member: Member, what: str) -> None:
        """Replace a process with a thread that does not come back; its other runs may finish.

        One that is to end anyway is not replaced.
        """
        text = f"{member.name} (pid {member.child.pid}): {what}"
        self._say(text, level="error", event="stuck", **member.facts)
        if member.leaving is None and not self.is_rolling(member):
            self.roll_out([member], lambda _: None)

    def _on_released(self, message: Released) -> None:
        name, _ = self._unreleased.pop(message.worker_id, ("worker", None))
        if message.runs:
            what = "run" if message.runs == 1 else "runs"
            alone = f", {len(message.suspects)} to run alone" if message.suspects else ""
            text = f"{name}: {message.runs} {what} given back{alone}"
            self._say(text, event="given_back", child=name, runs=message.runs)
        for key in message.failed:
            parsed = RunKey.parse(key)
            workflow = parsed.workflow_name_shard.rpartition("_")[0]
            self._measuring.count(RUNS_ENDED, workflow, "failed")
            self._say(
                f"{name}: run {key} failed: its process has died too often while it ran",
                level="error",
                event="run_failed",
                child=name,
                workflow=workflow,
                run_id=str(parsed.run_id),
                key=key,
            )

    # Leaving

    def retire(self, members: Iterable[Member], reason: str) -> None:
        """Have processes without a place end when their runs have ended."""
        for member in members:
            member.leaving = reason
            self.fleet.leaving.append(member)
            member.child.channel.send(Retire())
            text = f"{member.name} (pid {member.child.pid}) {reason}: finishing its runs"
            self._say(text, event="retiring", **member.facts)

    def scale(self, workflow: str, count: int) -> None:
        """Have `count` processes of a workflow."""
        text = f"workflow {workflow}: {count} process{'' if count == 1 else 'es'} from now on"
        self._say(text, event="scaled", workflow=workflow, processes=count)
        self.retire(self.fleet.scale(workflow, count, clock.monotonic()), "not needed")

    def stop(self) -> None:
        """Ask all workers to finish within the grace period; from here on none is replaced."""
        self._is_stopping = True
        self._rollouts.clear()
        for slot in self.fleet.workers:
            slot.due_s = None
        self.signal(signal.SIGTERM)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to all workers."""
        for member in self.fleet.crew:
            member.spared |= signum is signal.SIGKILL
            member.child.send_signal(signum)

    # Deaths

    def on_death(self, died: Died, *, workers: bool, maintenance: bool) -> ExitCode | None:
        """Clear up after a process of the fleet, and plan the next one.

        Args:
            died: the death.
            workers: whether workers are still wanted.
            maintenance: whether maintenance is.

        Returns:
            The code with which the start of the supervisor has failed, None if it has not.
        """
        found = self.fleet.find(died.child)
        if found is None:
            return None
        slot, member = found
        if member.worker_id is not None:
            self._release(member, died, stopping=not workers)
        how = f"{member.name} (pid {died.child.pid}) {describe_status(died.code)}"
        if slot is None:
            self.fleet.leaving.remove(member)
            self._say_died(f"{how}, as it was to" if not died.code else how, member, died)
        elif member is slot.successor:
            slot.successor = None
            self._say_died(how, member, died)
            self._end_rollout(f"{member.name} cannot boot: {_why(member, died)}")
        elif maintenance if slot is self.fleet.maintenance else workers:
            slot.rate = 0.0 if died.last is None else died.last.rate
            return self._replace(slot, how, died)
        else:
            slot.member = None
            what = describe_status(died.code) if died.code else "stopped"
            self._say_died(f"{slot.name} {what}", member, died)
        return None

    def _say_died(self, text: str, member: Member, died: Died, event: str = "died") -> None:
        """Tell of a death; one that was asked for, or arranged, alarms nobody."""
        is_asked = self._is_stopping or member.finishing or member.leaving is not None
        is_normal = member.spared or (is_asked and not died.code)
        self._say(
            text,
            level="error" if event == "broken" else "info" if is_normal else "warning",
            event=event,
            exit=cause_of(died.code, killed_for=member.killed_for),
            **member.facts,
        )

    def _release(self, member: Member, died: Died, *, stopping: bool) -> None:
        assert member.worker_id is not None
        if is_crash(member, died, stopping=stopping):
            self._measuring.count(CRASHES, member.workflow)
        charge = blame(
            member,
            died,
            max_crashes=self._generations.plan_of(member.workflow).max_crashes,
            is_oom=died.code == -signal.SIGKILL and self._oom_kills.explain_one(),
            stopping=stopping,
        )
        release = Release(member.worker_id, charge)
        self._unreleased[member.worker_id] = member.name, release
        maintenance = self.fleet.maintenance.member
        if maintenance is not None:
            maintenance.child.channel.send(release)

    def tell_schedules(self, workflows: tuple[str, ...]) -> None:
        """Have the schedules of these workflows fired from here on."""
        maintenance = self.fleet.maintenance.member
        # One that is started later is given them.
        if maintenance is not None:
            kept = {name: self._generations.plan_of(name).retention_s for name in workflows}
            keep_s = {name: span for name, span in kept.items() if span is not None}
            maintenance.child.channel.send(Serve(workflows, keep_s))

    def _replace(self, slot: Slot, how: str, died: Died) -> ExitCode | None:
        now_s, member = clock.monotonic(), slot.member
        assert member is not None
        slot.last_exit = how if member.refused is None else f"{how}: {_why(member, died)}"
        slot.died_s = slot.died_s or now_s
        verdict = self.fleet.judge(slot, now_s)
        self._fail_rollouts(slot, f"{member.name} cannot boot: {_why(member, died)}")
        if isinstance(verdict, StartFailed):
            self._say_died(how, member, died)
            return verdict.code
        if slot.successor is not None:
            # It is on its way already.
            slot.member, slot.successor, slot.due_s = slot.successor, None, None
            self._say_died(how, member, died)
        elif isinstance(verdict, Restart):
            slot.restarts += 1
            self._count_restart(slot)
            slot.due_s = now_s + verdict.after_s
            when = f"in {verdict.after_s:.1f} s" if verdict.after_s else "now"
            self._say_died(f"{how}; restarting {when}", member, died)
        elif isinstance(verdict, Broken):
            others = any(
                each.member for each in self.fleet.workers if each.workflow == slot.workflow
            )
            what = "its other processes go on" if others else "its runs are not executed"
            text = (
                f"{how}; workflow {slot.workflow} is broken: {what},"
                f" the next try is in {verdict.after_s:g} s"
            )
            self._say_died(text, member, died, event="broken")
        return None

    def _count_restart(self, slot: Slot) -> None:
        if slot.workflow is None:
            self._measuring.count(MAINTENANCE_RESTARTS)
        else:
            self._measuring.count(RESTARTS, slot.workflow)

    # Rollouts

    def roll_out(
        self,
        members: Iterable[Member],
        done: Callable[[str | None], None],
        fresh: Iterable[Slot] = (),
    ) -> None:
        """Replace members one after another, after those that are being replaced already.

        It is done when the `fresh` places, which have no process yet, have one that is ready, too.
        Not while the supervisor stops: the next one would claim runs, and nobody asks it to finish.
        """
        if self._is_stopping:
            done("the supervisor is stopping")
            return
        self._rollouts.append(Rollout(deque(members), done, set(fresh)))
        self._continue_rollouts()

    def is_rolling(self, member: Member) -> bool:
        """Tell whether a member is to be replaced, or being replaced."""
        return any(member in rollout.waiting for rollout in self._rollouts) or any(
            slot.member is member and slot.successor is not None for slot in self.fleet.workers
        )

    def cancel_rollouts(self, why: str) -> None:
        """End all rollouts; successors that are not ready yet are killed."""
        rollouts, self._rollouts = self._rollouts, deque()
        for slot in self.fleet.workers:
            if slot.successor is not None:
                slot.successor.leaving = why
                slot.successor.spared = True
                self.fleet.leaving.append(slot.successor)
                slot.successor.child.send_signal(signal.SIGKILL)
                slot.successor = None
        for rollout in rollouts:
            rollout.done(why)

    def _fail_rollouts(self, slot: Slot, failure: str) -> None:
        """Have the rollouts end that wait for the first process of a place."""
        for rollout in self._rollouts:
            if slot in rollout.fresh:
                rollout.failure = failure

    def _end_rollout(self, failure: str | None) -> None:
        if self._rollouts:
            self._rollouts.popleft().done(failure)

    def _continue_rollouts(self) -> None:
        while self._rollouts and not any(slot.successor for slot in self.fleet.workers):
            rollout = self._rollouts[0]
            if rollout.failure is not None:
                self._end_rollout(rollout.failure)
                continue
            slot = self._next_slot(rollout)
            if slot is None:
                if not rollout.fresh.isdisjoint(self.fleet.workers):
                    return
                self._end_rollout(None)
                continue
            try:
                slot.successor = self._start(slot)
            except OSError as error:
                self._end_rollout(f"{slot.name} cannot be forked: {error}")

    def _next_slot(self, rollout: Rollout) -> Slot | None:
        """Return the next slot whose member is still to be replaced."""
        while rollout.waiting:
            member = rollout.waiting.popleft()
            for slot in self.fleet.workers:
                if slot.member is member:
                    return slot
        return None


def _why(member: Member, died: Died) -> str:
    """Return why a process has ended: what it has said, or else how."""
    if member.refused is None:
        return f"it {describe_status(died.code)}"
    return " ".join(member.refused.reason.split("\n"))
