"""What keeps a process from going on: pure policy over what its board says.

    heartbeat old                     no Python runs: a call into C that keeps the interpreter's
                                      lock, or the process is stopped
    waits for the database            a statement, or a connection, takes its time
    a step runs long, heartbeat new   it works; told once, and nothing else

Only the first is a hang: nothing in the process can act any more, it does not even hear a signal.
It is killed where `hang_timeout` says so, or where the time of a step or a run is up: then the
process would have ended that itself, if it could.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows.clock import seconds
from flows.config import DEFAULT_TIMEOUT_GRACE

if TYPE_CHECKING:
    from flows.board import BoardState

__all__ = ["HangLimits", "HangWatch", "Incident"]


@dataclass(frozen=True, slots=True)
class HangLimits:
    """When something takes too long, in seconds.

    Attributes:
        heartbeat_s: the main thread has not run; it does every second or so.
        database_s: the database has not answered.
        step_s: a step has not returned.
        grace_s: a deadline is past, and the process has not acted on it.
        deaf_s: the main thread has not run, where a deadline is past: longer than an idle process
            takes between two signs of life.
    """

    heartbeat_s: float = 10.0
    database_s: float = 30.0
    step_s: float = 600.0
    grace_s: float = seconds(DEFAULT_TIMEOUT_GRACE)
    deaf_s: float = 7.0


@dataclass(frozen=True, slots=True)
class Incident:
    """Something to tell, and perhaps to do.

    Attributes:
        text: what takes too long.
        wants_stacks: the stacks of the process show more.
        kill: it has been hanging for `hang_timeout`, or over a deadline.
    """

    text: str
    wants_stacks: bool = False
    kill: bool = False


@dataclass(slots=True)
class HangWatch:
    """What was told of one process already: each incident is told once.

    Attributes:
        kill_after_s: how long it may hang, None for as long as it likes.
        limits: what takes too long.
    """

    kill_after_s: float | None = None
    limits: HangLimits = field(default_factory=HangLimits)
    _told: set[object] = field(default_factory=set)

    def look(self, state: BoardState, now_s: float) -> list[Incident]:
        """Return what is new, given what the board says at a moment."""
        if not state.heartbeat_s:
            return []
        incidents = []
        silent_s = now_s - state.heartbeat_s
        missed = self._missed_deadline(state, now_s)
        if missed is not None:
            return [Incident(missed, kill=True)]
        kill = self.kill_after_s is not None and silent_s >= self.kill_after_s
        if silent_s >= self.limits.heartbeat_s or kill:
            # A board that nobody writes says nothing about the rest.
            new = self._is_new(("heartbeat", state.heartbeat_s)) or kill
            text = f"no Python has run for {silent_s:.0f} s{_during(state)}"
            return [Incident(text, wants_stacks=not kill, kill=kill)] if new else []
        waits_s = now_s - state.database_since_s
        is_late = state.database_since_s and waits_s >= self.limits.database_s
        if is_late and self._is_new(("database", state.database_since_s)):
            incidents.append(Incident(f"has waited for the database for {waits_s:.0f} s"))
        for each in state.executing:
            if each is None or each.step is None:
                continue
            busy_s = now_s - each.step_since_s
            if busy_s >= self.limits.step_s and self._is_new((each.run_id, each.step_since_s)):
                text = f"step {each.step} of run {each.run_id} has run for {busy_s:.0f} s"
                incidents.append(Incident(text, wants_stacks=True))
        return incidents

    def next_deadline_s(self, state: BoardState) -> float | None:
        """Return when a deadline will have been missed, as things stand; None if none is set."""
        moments = [each.deadline_s for each in state.executing if each and each.deadline_s]
        return min(moments) + self.limits.grace_s if moments else None

    def _missed_deadline(self, state: BoardState, now_s: float) -> str | None:
        if now_s - state.heartbeat_s < self.limits.deaf_s:
            return None
        for each in state.executing:
            # A sign of life after it means that the process could have acted, and does.
            if each is None or not state.heartbeat_s < each.deadline_s:
                continue
            if now_s >= each.deadline_s + self.limits.grace_s:
                what = (
                    f"step {each.step} of run {each.run_id}" if each.step else f"run {each.run_id}"
                )
                late_s = now_s - each.deadline_s
                return f"no Python has run since the time of {what} was up, {late_s:.0f} s ago"
        return None

    def _is_new(self, incident: object) -> bool:
        if incident in self._told:
            return False
        self._told.add(incident)
        return True


def _during(state: BoardState) -> str:
    names = [
        each.run_id + (f" (step {each.step})" if each.step else "")
        for each in state.executing
        if each is not None
    ]
    return f", during {', '.join(names)}" if names else ""
