"""Which processes there should be, and what becomes of each that died.

    waiting ──due──▶ booting ──Ready──▶ ready ──successor is ready──▶ leaving ──▶ gone
       ▲                │                 │
       │                └──────died───────┤
       ├──crash within the budget ◀───────┤   at once, then with growing waits
       ├──asked to finish, lease lost, ◀──┤   likewise, and never charged
       │  or database away                │
       └──minutes later── broken ◀────────┘   budget spent, or it cannot boot any more

A slot is a place for a process, a member the process that has it. A successor boots beside the
member whose place it will take; the one before leaves when its runs have ended. A child that
cannot boot before any was ever ready ends the start of the supervisor as a whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flows.supervisor.exits import BOOT_FAILURES, ExitCode
from flows.supervisor.restart import Backoff, RestartBudget, RestartPolicy

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Sequence

    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.jobs import WorkflowPlan
    from flows.supervisor.messages import Refused

__all__ = ["Broken", "Fleet", "Member", "Restart", "Slot", "StartFailed", "Verdict"]


_NOT_CHARGED = frozenset({ExitCode.DATABASE, ExitCode.LEASE_LOST})
"""What is nobody's fault and passes: the next process may well work."""


@dataclass(eq=False, slots=True)
class Member:
    """A process of the fleet.

    Attributes:
        name: as in "worker render [1/2]".
        child: the process.
        workflow: whose runs it executes; empty for maintenance.
        worker_id: its identity in the database; None for maintenance.
        generation: of the code it runs.
        core: the only one it uses; None for any.
        ready_s: when it became ready, on the monotonic clock.
        refused: what it has said about why it cannot work.
        finishing: somebody has asked it by a signal to end.
        leaving: why it is to end, None while it is not.
        spared: whether it was killed through no fault of its runs.
        killed_for: what it was killed for, None if it was not.
    """

    name: str
    child: ChildProcess
    workflow: str = ""
    worker_id: uuid.UUID | None = None
    generation: int = 0
    core: int | None = None
    ready_s: float | None = None
    refused: Refused | None = None
    finishing: bool = False
    leaving: str | None = None
    spared: bool = False
    killed_for: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What an event of it is told with: which process it is."""
        return {
            "child": self.name,
            "child_pid": self.child.pid,
            "workflow": self.workflow or None,
        }


@dataclass(eq=False, slots=True)
class Slot:
    """A place for one process.

    Attributes:
        name: as in "worker render [1/2]".
        workflow: the workflow whose runs are executed here; None for maintenance.
        backoff: waits between restarts.
        member: the process that has the place.
        successor: the process that will take it once it is ready.
        due_s: when the next process is to be forked, on the monotonic clock.
        died_s: when its process was seen dead; None once another one is ready.
        was_ready: whether any process of this slot has become ready.
        broken: the budget is spent, or a process could not boot.
        rate: how many runs a second the last process that died here could do.
        restarts: how many processes have died here and were replaced.
        last_exit: how the last of them ended.
    """

    name: str
    workflow: str | None
    backoff: Backoff
    member: Member | None = None
    successor: Member | None = None
    due_s: float | None = None
    died_s: float | None = None
    was_ready: bool = False
    broken: bool = False
    rate: float = 0.0
    restarts: int = 0
    last_exit: str | None = None

    @property
    def members(self) -> list[Member]:
        """The processes of this place, the successor last."""
        return [each for each in (self.member, self.successor) if each is not None]

    @property
    def is_ready(self) -> bool:
        """Whether the process that has the place works."""
        return self.member is not None and self.member.ready_s is not None

    def known_rate(self) -> float:
        """Return how many runs a second a process can do here, as far as is known."""
        board = None if self.member is None else self.member.child.board
        return self.rate if board is None else board.rate

    def fill(self, member: Member) -> None:
        """Give the place to a process that has just been started."""
        self.member = member
        self.due_s = None

    def became_ready(self, member: Member, now_s: float) -> Member | None:
        """Record that a process works; return the one whose place it has taken."""
        member.ready_s = now_s
        self.was_ready = True
        if member is not self.successor:
            return None
        before, self.member, self.successor = self.member, member, None
        self.due_s = None
        return before


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the next process after a wait."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Broken:
    """Start no process for this workflow for a while; `code` says why."""

    code: ExitCode
    after_s: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The process cannot boot and never could: give up the start of the supervisor."""

    code: ExitCode


Verdict = Restart | Broken | StartFailed


@dataclass(slots=True)
class Fleet:
    """The slots of a supervisor: maintenance, and the workers of each workflow.

    Attributes:
        policy: how processes that die are replaced.
        maintenance: its slot.
        workers: the others, in the order of the registry.
        leaving: processes that have no place any more and end by themselves.
    """

    policy: RestartPolicy
    maintenance: Slot
    workers: list[Slot] = field(default_factory=list)
    leaving: list[Member] = field(default_factory=list)
    _budgets: dict[str, RestartBudget] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: RestartPolicy) -> Fleet:
        """Return a fleet of maintenance alone."""
        return cls(policy, Slot("maintenance", None, Backoff(policy)))

    @property
    def slots(self) -> list[Slot]:
        """All slots, maintenance first."""
        return [self.maintenance, *self.workers]

    @property
    def crew(self) -> list[Member]:
        """All worker processes, those included that boot or leave."""
        return [*(member for slot in self.workers for member in slot.members), *self.leaving]

    @property
    def working(self) -> set[str]:
        """The workflows that have a process, or will have one again soon."""
        return {str(slot.workflow) for slot in self.workers if slot.member or not slot.broken}

    @property
    def broken(self) -> list[str]:
        """The workflows that are broken."""
        return list(dict.fromkeys(str(slot.workflow) for slot in self.workers if slot.broken))

    def shape(self, plans: Sequence[WorkflowPlan], now_s: float) -> list[Member]:
        """Have the slots that an application wants; return the members without a place."""
        homeless = []
        wanted = {plan.name for plan in plans}
        for name in {str(slot.workflow) for slot in self.workers} - wanted:
            homeless += self.scale(name, 0, now_s)
        for plan in plans:
            homeless += self.scale(plan.name, plan.processes, now_s)
        order = [plan.name for plan in plans]
        self.workers.sort(key=lambda slot: order.index(str(slot.workflow)))
        return homeless

    def scale(self, workflow: str, count: int, now_s: float) -> list[Member]:
        """Have `count` slots for a workflow; return the members without a place."""
        present = [slot for slot in self.workers if slot.workflow == workflow]
        for _ in range(len(present), count):
            slot = Slot(workflow, workflow, Backoff(self.policy), due_s=now_s)
            # Where others have worked, its first failure to boot is not the supervisor's.
            slot.was_ready = any(each.was_ready for each in self.workers)
            self.workers.append(slot)
            present.append(slot)
        homeless = []
        for slot in present[count:]:
            self.workers.remove(slot)
            homeless += slot.members
        for index, slot in enumerate(present[:count], 1):
            place = f" [{index}/{count}]" if count > 1 else ""
            slot.name = f"worker {workflow}{place}"
            for member in slot.members:
                member.name = slot.name
                # What it prints is told under this name; `ps` keeps the one before.
                member.child.title = f"flows: {slot.name}"
        return homeless

    def find(self, child: ChildProcess) -> tuple[Slot | None, Member] | None:
        """Return a process and its slot, if it has one; None if it is none of the fleet's."""
        for slot in self.slots:
            for member in slot.members:
                if member.child is child:
                    return slot, member
        return next(((None, each) for each in self.leaving if each.child is child), None)

    def of_workflow(self, workflow: str) -> Iterator[Slot]:
        """Return the slots of a workflow."""
        return (slot for slot in self.workers if slot.workflow == workflow)

    def busiest(self) -> str:
        """Return the workflow with the largest share of busy executors."""
        busy: Counter[str] = Counter()
        executors: Counter[str] = Counter()
        for slot in self.workers:
            # One that has no process yet could do with more than one.
            executors[str(slot.workflow)] += 1
            if slot.member is not None and slot.member.child.board is not None:
                state = slot.member.child.board.read()
                busy[str(slot.workflow)] += state.busy
                executors[str(slot.workflow)] += len(state.executing) - 1
        return max(executors, key=lambda name: busy[name] / executors[name])

    def due(self, now_s: float) -> list[Slot]:
        """Return the slots whose next process is due."""
        return [slot for slot in self.slots if slot.due_s is not None and slot.due_s <= now_s]

    def next_due_s(self) -> float | None:
        """Return when the next process of any slot is due."""
        return min((slot.due_s for slot in self.slots if slot.due_s is not None), default=None)

    def judge(self, slot: Slot, now_s: float) -> Verdict:
        """Decide what becomes of a slot whose member has died; empties the slot.

        What the process has said about itself counts, not its exit code: that may be anything
        the application has chosen.
        """
        member = slot.member
        assert member is not None
        healthy_s = 0.0 if member.ready_s is None else now_s - member.ready_s
        said = None if member.refused is None else member.refused.code
        boot_failure = said if member.ready_s is None and said in BOOT_FAILURES else None
        slot.member = None
        if boot_failure is not None and not slot.was_ready:
            return StartFailed(boot_failure)
        if slot.workflow is None or said in _NOT_CHARGED or member.finishing:
            return Restart(slot.backoff.next_s(healthy_s))
        if boot_failure is not None:
            return self._break(slot.workflow, boot_failure, now_s)
        if slot.broken and healthy_s >= self.policy.healthy_s:
            self.mend(slot.workflow)
        if slot.broken or not self._budget(slot.workflow).spend(now_s):
            return self._break(slot.workflow, ExitCode.BROKEN, now_s)
        return Restart(slot.backoff.next_s(healthy_s))

    def mend(self, workflow: str) -> None:
        """Forget that a workflow was broken, with all that was charged to it."""
        self._budgets.pop(workflow, None)
        for slot in self.of_workflow(workflow):
            slot.broken = False
            slot.backoff = Backoff(self.policy)

    def _budget(self, workflow: str) -> RestartBudget:
        return self._budgets.setdefault(workflow, RestartBudget(self.policy))

    def _break(self, workflow: str, code: ExitCode, now_s: float) -> Broken:
        after_s = self.policy.broken_s
        for slot in self.of_workflow(workflow):
            slot.broken = True
            if slot.member is None:
                slot.due_s = now_s + after_s
        return Broken(code, after_s)
