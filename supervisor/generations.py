"""Generations of the application's code: which one new processes come from.

    boot ─▶ candidate ──Loaded──▶ serving ──settle──▶ serving, the one before is ended
                │                    │
                └─Refused, died      └──roll back──▶ the one before is serving again

A generation is a template where children are forked, and a mere number where they are started in
fresh interpreters: going back to one is possible only with a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.supervisor.exits import ExitCode
from flows.supervisor.happenings import describe_status
from flows.supervisor.jobs import WorkflowPlan
from flows.supervisor.messages import Loaded, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.happenings import ChildProcess, Died
    from flows.supervisor.jobs import Order
    from flows.supervisor.messages import Message
    from flows.supervisor.template import Template

__all__ = ["BootFailed", "Booted", "Generation", "Generations", "Lost"]


@dataclass(eq=False, slots=True)
class Generation:
    """The code as it was when it was imported.

    Attributes:
        number: counted from 1.
        child: the process that imports it, None once that is gone.
        template: what forks children, None where they are started otherwise.
        loaded: what the import has found, None as long as it lasts.
        refused: why it cannot be imported.
    """

    number: int
    child: ChildProcess | None
    template: Template | None
    loaded: Loaded | None = None
    refused: Refused | None = None

    @property
    def workflows(self) -> tuple[WorkflowPlan, ...]:
        """The workflows it has."""
        assert self.loaded is not None
        return self.loaded.workflows

    @property
    def threads(self) -> tuple[str, ...]:
        """The threads that its import has started."""
        assert self.loaded is not None
        return self.loaded.threads

    @property
    def roots(self) -> tuple[str, ...]:
        """The files and folders of its source."""
        assert self.loaded is not None
        return self.loaded.roots

    def end(self) -> None:
        """End the template; what it has forked goes on."""
        if self.template is not None:
            self.template.close()


@dataclass(frozen=True, slots=True)
class Booted:
    """The candidate is imported."""

    generation: Generation


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The candidate cannot be imported, and is gone."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The serving template has died."""

    reason: str


class Generations:
    """The generations that there are: one that serves, one before it, one that boots."""

    def __init__(
        self,
        boot: Callable[[int], tuple[ChildProcess, Template | None]],
        start: Callable[[Order], ChildProcess] | None,
    ) -> None:
        """Prepare to boot.

        Args:
            boot: starts the import of a generation, by its number.
            start: starts a child without a template; None where templates fork them.
        """
        self._boot = boot
        self._start = start
        self._count = 0
        self.serving: Generation | None = None
        self._previous: Generation | None = None
        self.candidate: Generation | None = None

    @property
    def threads(self) -> tuple[str, ...]:
        """The threads that the import has started, of the generation that serves."""
        assert self.serving is not None
        return self.serving.threads

    @property
    def is_lost(self) -> bool:
        """Whether children cannot be started: the template that serves is dead."""
        assert self.serving is not None
        return self._start is None and self.serving.template is None

    def plan_of(self, workflow: str) -> WorkflowPlan:
        """Return how a workflow is run; the defaults for one that is not run any more."""
        assert self.serving is not None
        plans = self.serving.workflows
        return next((plan for plan in plans if plan.name == workflow), WorkflowPlan(workflow))

    @property
    def number(self) -> int:
        """The number of the generation that serves."""
        assert self.serving is not None
        return self.serving.number

    def boot(self) -> None:
        """Begin to import the application; a boot that is under way is given up.

        Raises:
            OSError: the system has no room for another process now.
        """
        if self.candidate is not None:
            self.give_up()
        child, template = self._boot(self._count + 1)
        self._count += 1
        self.candidate = Generation(self._count, child, template)

    def give_up(self) -> None:
        """End the candidate."""
        if self.candidate is not None:
            if self.candidate.child is not None:
                self.candidate.child.kill_group()
            self.candidate.end()
        self.candidate = None

    def start(self, order: Order) -> ChildProcess:
        """Start a child of the serving generation.

        Raises:
            OSError: there is no room for another process, or no template that could fork it.
        """
        if self._start is not None:
            return self._start(order)
        assert self.serving is not None
        if self.serving.template is None:
            raise ConnectionResetError("the application is being imported again")
        return self.serving.template.start(order)

    def on_message(self, child: ChildProcess, message: Message) -> Booted | None:
        """Take in what a child has said, if it is one of these."""
        candidate = self.candidate
        if candidate is None or candidate.child is not child:
            return None
        if isinstance(message, Refused):
            candidate.refused = message
        elif isinstance(message, Loaded):
            candidate.loaded = message
            return Booted(candidate)
        return None

    def owns(self, child: ChildProcess) -> bool:
        """Tell whether a process belongs to a generation."""
        known = (self.serving, self._previous, self.candidate)
        return any(each is not None and each.child is child for each in known)

    def on_death(self, died: Died) -> BootFailed | Lost | None:
        """Take in a death, if it is of one of these."""
        candidate = self.candidate
        if candidate is not None and candidate.child is died.child and candidate.loaded is None:
            candidate.end()
            self.candidate = None
            if candidate.refused is not None:
                return BootFailed(candidate.refused.code, candidate.refused.reason)
            how = describe_status(died.code)
            return BootFailed(ExitCode.CONFIG, f"the process that imports the application {how}")
        for generation in (self.serving, self._previous, candidate):
            if generation is not None and generation.child is died.child:
                generation.child = None
                if generation.template is not None:
                    generation.end()
                    generation.template = None
                    if generation is self.serving:
                        return Lost(describe_status(died.code))
        return None

    def serve(self) -> None:
        """Have the candidate serve; the one before is kept, to go back to."""
        if self._previous is not None:
            self._previous.end()
        self._previous, self.serving, self.candidate = self.serving, self.candidate, None

    def close(self) -> None:
        """End all generations."""
        for generation in (self.serving, self._previous, self.candidate):
            if generation is not None:
                generation.end()

    def settle(self) -> None:
        """End the generation before the one that serves: nobody goes back to it."""
        if self._previous is not None:
            self._previous.end()
            self._previous = None

    def roll_back(self) -> bool:
        """Have the generation before serve again, and tell whether that was possible."""
        if self._previous is None or self._previous.template is None:
            return False
        assert self.serving is not None
        self.serving.end()
        self.serving, self._previous = self._previous, None
        return True
