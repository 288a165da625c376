"""A look at the boards every few seconds: who hangs, and whose time is over."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from flows import clock
from flows.supervisor.hangs import HangWatch
from flows.supervisor.recycling import Lifetime, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.supervisor.crew import Crew
    from flows.supervisor.fleet import Member
    from flows.supervisor.jobs import WorkflowPlan
    from flows.supervisor.plan import Level, Say

__all__ = ["Watching"]

_LOOK_S = 5.0
_LOOK_CLOSELY_S = 1.0
"""How often, where some process is to be replaced or killed by what its board says."""

_TRY_AGAIN_S = 30.0
"""When a process whose successor could not boot is replaced after all."""


class Watching:
    """Acts on what the boards of the crew say."""

    def __init__(self, crew: Crew, say: Say) -> None:
        """Watch a crew; `say` tells of what is found."""
        self._crew = crew
        self._say = say
        self._hangs: dict[Member, HangWatch] = {}
        self._lifetimes: dict[Member, Lifetime | None] = {}
        self._not_before_s: dict[Member, float] = {}
        self.due_s: float = clock.monotonic() + _LOOK_S

    def act_on_time(self, now_s: float, plans: Sequence[WorkflowPlan]) -> None:
        """Look, if it is time to."""
        if now_s < self.due_s:
            return
        by_name = {plan.name: plan for plan in plans}
        is_close = False
        for member in self._crew.fleet.crew:
            plan = by_name.get(member.workflow)
            if member.child.board is None or plan is None:
                continue
            is_close |= plan.hang_timeout_s is not None or Lifetime.of(plan) is not None
            is_close |= self._look_for_hangs(member, plan, now_s)
            if member.leaving is None:
                self._look_at_lifetime(member, plan, now_s)
        self.due_s = now_s + (_LOOK_CLOSELY_S if is_close else _LOOK_S)
        self._forget()

    def _look_for_hangs(self, member: Member, plan: WorkflowPlan, now_s: float) -> bool:
        """Act on what hangs; return whether the next look should be soon."""
        assert member.child.board is not None
        watch = self._hangs.get(member)
        if watch is None:
            watch = self._hangs[member] = HangWatch(plan.hang_timeout_s)
        state = member.child.board.read()
        for incident in watch.look(state, now_s):
            end = ": killing it" if incident.kill else ""
            text = f"{member.name} (pid {member.child.pid}): {incident.text}{end}"
            level: Level = "error" if incident.kill else "warning"
            self._say(text, level=level, event="hang", **member.facts)
            if incident.wants_stacks:
                member.child.send_signal(signal.SIGUSR1)
            if incident.kill:
                member.killed_for = incident.text
                member.child.send_signal(signal.SIGKILL)
        deadline_s = watch.next_deadline_s(state)
        return deadline_s is not None and deadline_s - now_s < _LOOK_S

    def _look_at_lifetime(self, member: Member, plan: WorkflowPlan, now_s: float) -> None:
        assert member.child.board is not None
        if member not in self._lifetimes:
            self._lifetimes[member] = Lifetime.of(plan)
        lifetime = self._lifetimes[member]
        if (
            lifetime is None
            or self._crew.is_rolling(member)
            or self._not_before_s.get(member, now_s) > now_s
        ):
            return
        rss = resident_bytes(member.child.pid) if lifetime.max_rss is not None else None
        finished = member.child.board.read().finished
        why = lifetime.is_over(now_s - member.child.started_s, finished, rss)
        if why is not None:
            text = f"{member.name} (pid {member.child.pid}) {why}: replacing it"
            self._say(text, event="recycling", **member.facts)
            self._not_before_s[member] = now_s + _TRY_AGAIN_S
            self._crew.roll_out([member], lambda _: None)

    def _forget(self) -> None:
        crew = set(self._crew.fleet.crew)
        tables: tuple[dict[Member, Any], ...] = (self._hangs, self._lifetimes, self._not_before_s)
        for table in tables:
            for member in table.keys() - crew:
                table.pop(member)
