"""A reload: new code beside the old, then one worker after another, or back again.

begin ─▶ importing ─▶ rolling ─────────▶ done
            │            └─cannot boot─▶ rolling back ─▶ aborted
            └─cannot import ───────────────────────────▶ aborted
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import clock
from flows.supervisor.generations import BootFailed, Lost
from flows.supervisor.messages import Changed, Ready
from flows.supervisor.watching_files import FileWatch, is_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.crew import Crew
    from flows.supervisor.generations import Booted, Generations
    from flows.supervisor.happenings import ChildProcess, Died
    from flows.supervisor.messages import Message
    from flows.supervisor.notify import ServiceManager
    from flows.supervisor.plan import Say
    from flows.supervisor.processes import Processes

__all__ = ["Reloading", "warn_of"]

_REPAIR_S = (0.1, 30.0)
"""First and longest wait before an application whose template has died is imported again."""


def warn_of(thread: str) -> str:
    """Return a warning of a thread that the import of the application has started."""
    return f"warning: importing it has started the thread {thread}, which no worker will have"


class Reloading:
    """Moves the fleet from one generation of the code to the next."""

    def __init__(
        self,
        generations: Generations,
        crew: Crew,
        say: Say,
        service: ServiceManager,
    ) -> None:
        """Prepare to reload.

        Args:
            generations: boot the new code.
            crew: replaces the workers.
            say: tells of an event.
            service: told that a reload is under way, and that it is over.
        """
        self._service = service
        self._generations = generations
        self._crew = crew
        self._say = say
        self._began_s = 0.0
        self._turn = 0
        self._is_repair = False
        self._repairs = 0
        self._has_failed = False
        self._files: FileWatch | None = None
        self._done: list[Callable[[str | None], None]] = []
        self.due_s: float | None = None

    def begin(self, why: str, done: Callable[[str | None], None] | None = None) -> None:
        """Begin a reload; one that is under way is given up for it.

        Args:
            why: for the people who watch.
            done: called at the end, with what went wrong, or None.
        """
        self._give_up("another reload was asked for")
        # It brings a new template, whatever has become of the old one.
        self.due_s = None
        self._say(f"{why}: importing the application again", event="reloading")
        self._service.reloading()
        self._is_repair = False
        self._began_s = clock.monotonic()
        if done is not None:
            self._done.append(done)
        try:
            self._generations.boot()
        except OSError as error:
            self._abort(str(error))

    def watch_files(self, processes: Processes) -> None:
        """Have children tell when files of the application change."""
        self._files = FileWatch(processes, self._say)
        self._follow_files()

    def _follow_files(self) -> None:
        assert self._generations.serving is not None
        if self._files is not None:
            self._files.follow(self._generations.serving.roots)

    def on_message(self, child: ChildProcess, message: Message) -> bool:
        """Take in what was said, and tell whether it was for a reload."""
        booted = self._generations.on_message(child, message)
        if booted is not None:
            self._on_booted(booted)
            return True
        if self._files is None or not self._files.owns(child):
            return False
        match message:
            case Ready():
                self._files.on_ready(child)
            case Changed(paths):
                self._begin_for(paths)
            case _:
                return False
        return True

    def _begin_for(self, paths: tuple[str, ...]) -> None:
        """Begin a reload because files have changed, if they are of the application.

        Which ones are is not known of code that could not be imported: then all beside it are.
        """
        assert self._generations.serving is not None
        roots = self._generations.serving.roots
        ours = [path for path in paths if self._has_failed or is_source(path, roots)]
        if ours:
            more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
            self.begin(f"{ours[0]}{more} has changed")

    def owns(self, child: ChildProcess) -> bool:
        """Tell whether `on_death` is for the death of a process."""
        watches = self._files is not None and self._files.owns(child)
        return watches or self._generations.owns(child)

    def stop(self) -> None:
        """Give up what is under way: the supervisor ends."""
        if self._files is not None:
            self._files.stop()
        self.due_s = None
        self._give_up("the supervisor is stopping")

    def act_on_time(self, now_s: float) -> None:
        """Import the application of a dead template again, if it is time to."""
        if self.due_s is None or self.due_s > now_s:
            return
        self.due_s = None
        self._is_repair = True
        try:
            self._generations.boot()
        except OSError as error:
            self._repair_later(str(error))

    def _on_booted(self, booted: Booted) -> None:
        """The new code is imported: the workers follow, or only the template is new."""
        for thread in booted.generation.threads:
            self._say(warn_of(thread), level="warning")
        self._generations.serve()
        if self._is_repair:
            self._is_repair = False
            self._repairs = 0
            self._generations.settle()
            self._say("the application is imported again")
        else:
            self._follow(self._rolled)

    def on_death(self, died: Died) -> None:
        """A process that imports, has imported, or watches the application is gone."""
        if self._files is not None and self._files.owns(died.child):
            self._files.on_death(died)
        match self._generations.on_death(died):
            case BootFailed(_, reason) if self._is_repair:
                self._repair_later(reason)
            case BootFailed(_, reason):
                self._abort(reason)
            case Lost(reason):
                text = f"the template {reason}: importing the application again"
                self._say(text, level="warning", event="template_died")
                if self._generations.candidate is None:
                    self.due_s = clock.monotonic()

    def _follow(self, done: Callable[[str | None], None]) -> None:
        """Bring the fleet to the generation that serves."""
        fleet, number, now_s = self._crew.fleet, self._generations.number, clock.monotonic()
        assert self._generations.serving is not None
        plans = self._generations.serving.workflows
        self._crew.retire(fleet.shape(plans, now_s), "not needed")
        self._crew.tell_schedules(tuple(plan.name for plan in plans))
        # Those that are tried again are not waited for: they may be as broken as before.
        fresh = [each for each in fleet.workers if each.member is None and each.last_exit is None]
        for slot in fleet.workers:
            if slot.broken:
                fleet.mend(str(slot.workflow))
            if slot.member is None:
                slot.due_s = now_s
        old = [
            slot.member
            for slot in fleet.workers
            if slot.member is not None and slot.member.generation != number
        ]
        self._turn += 1
        turn = self._turn
        # Of a rollout that was given up for another, nobody wants to know.
        self._crew.roll_out(
            old, lambda failure: done(failure) if turn == self._turn else None, fresh
        )

    def _rolled(self, failure: str | None) -> None:
        if failure is None:
            self._generations.settle()
            took_s = clock.monotonic() - self._began_s
            number = self._generations.number
            text = f"reloaded in {took_s:.1f} s: generation {number}"
            self._say(text, event="reloaded", generation=number)
            self._service.ready(f"generation {number}")
            self._has_failed = False
            self._follow_files()
            self._end(None)
        elif self._generations.roll_back():
            self._say_aborted(f"reload aborted, going back to the code before it: {failure}")
            self._follow(lambda again: self._fail(again or failure))
        else:
            text = f"reload aborted: {failure}; what is not replaced yet goes on as it is"
            self._say_aborted(text)
            self._fail(failure)

    def _abort(self, reason: str) -> None:
        self._say_aborted(f"reload aborted, the code before it goes on: {reason}")
        self._fail(reason)

    def _say_aborted(self, text: str) -> None:
        self._say(text, level="error", event="reload_aborted")

    def _fail(self, reason: str) -> None:
        if self._generations.is_lost:
            self._repair_later("the template is dead")
        self._has_failed = True
        self._service.ready(f"reload aborted: {reason}")
        self._end(reason)

    def _repair_later(self, reason: str) -> None:
        first_s, longest_s = _REPAIR_S
        wait_s = min(longest_s, first_s * 2**self._repairs)
        self._repairs = min(self._repairs + 1, 16)
        self.due_s = clock.monotonic() + wait_s
        text = f"cannot import the application: {reason}; trying again in {wait_s:.1f} s"
        self._say(text, level="warning")

    def _give_up(self, why: str) -> None:
        self._turn += 1
        self._generations.give_up()
        self._crew.cancel_rollouts(why)
        self._end(why)

    def _end(self, failure: str | None) -> None:
        waiting, self._done = self._done, []
        for done in waiting:
            done(failure)
