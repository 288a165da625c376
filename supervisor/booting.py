"""The first import of the application, before there is a database or anything to supervise."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from flows.config import DBConfig
from flows.supervisor.application import load
from flows.supervisor.fresh import Interpreters
from flows.supervisor.generations import Booted, BootFailed, Generations
from flows.supervisor.happenings import Died, Told
from flows.supervisor.jobs import Inspect, Order, Settings
from flows.supervisor.template import Template

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.happenings import ChildProcess
    from flows.supervisor.jobs import Application, Target
    from flows.supervisor.processes import Processes
    from flows.supervisor.streams import LogStyle

__all__ = ["boot_first", "make_generations", "templates"]


def make_generations(
    processes: Processes, target: Target, start_method: str, log: LogStyle, *, debug: bool
) -> Generations:
    """Return the generations of an application, none of them booted."""
    if start_method == "fork":
        return templates(processes, lambda: load(target), target.app)
    interpreters = Interpreters(processes, target)
    # It looks at no database.
    nowhere = Settings("", DBConfig(), uuid.UUID(int=0))

    def inspect(number: int) -> tuple[ChildProcess, None]:
        title = f"flows: inspecting {target.app}, generation {number}"
        order = Order(title, Inspect(), nowhere, os.getpid(), log, debug)
        return interpreters.start(order), None

    return Generations(inspect, interpreters.start)


def templates(
    processes: Processes, load_application: Callable[[], Application], app: str
) -> Generations:
    """Return generations that are templates."""

    def boot(number: int) -> tuple[ChildProcess, Template]:
        title = f"flows: template {app}" + (f", generation {number}" if number > 1 else "")
        template = Template(processes, load_application, title=title)
        return template.child, template

    return Generations(boot, None)


def boot_first(processes: Processes, generations: Generations) -> BootFailed | None:
    """Wait until the first generation serves, or return why it cannot."""
    generations.boot()
    while True:
        for happening in processes.wait(None):
            match happening:
                case Told(child, message):
                    if isinstance(generations.on_message(child, message), Booted):
                        generations.serve()
                        return None
                case Died():
                    failed = generations.on_death(happening)
                    if isinstance(failed, BootFailed):
                        return failed
