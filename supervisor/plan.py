"""What a supervisor is given: what to do, and whom to tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from flows.supervisor.jobs import Order
from flows.supervisor.restart import RestartPolicy
from flows.supervisor.streams import LogStyle

if TYPE_CHECKING:
    from flows.supervisor.child import ChildMain
    from flows.supervisor.jobs import Begin, Job, Settings, WorkflowPlan
    from flows.supervisor.messages import Prepared, Unfinished

__all__ = ["Announcer", "Level", "MaintenanceMain", "Plan", "Say"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a supervisor is to do.

    Attributes:
        app: name of the application, as given.
        settings: what its children have in common.
        begins: runs to begin first.
        drain: end when no run is unfinished.
        reload: reload when files of the application change.
        log: how its children log.
        debug: children print the traceback of what ends them.
        restart: how processes that die are replaced.
    """

    app: str
    settings: Settings
    begins: tuple[Begin, ...] = ()
    drain: bool = False
    reload: bool = False
    log: LogStyle = LogStyle()  # noqa: RUF009  immutable
    debug: bool = False
    restart: RestartPolicy = field(default_factory=RestartPolicy)

    def order(self, title: str, job: Job) -> Order:
        """Return the order of a child of this process."""
        return Order(title, job, self.settings, os.getpid(), self.log, self.debug)


MaintenanceMain = Callable[["Prepared", "tuple[WorkflowPlan, ...]"], "ChildMain"]
"""Makes the main function of maintenance, from what was prepared and the workflows."""


Level = Literal["info", "warning", "error"]
"""As Python's logging has them."""


class Say(Protocol):
    """Tells of an event."""

    def __call__(self, text: str, /, *, level: Level = "info", **fields: Any) -> None:
        """Tell a person the text, and a program the level and the fields, `event` among them."""


class Announcer(Protocol):
    """Tells the person who watches what happens."""

    def say(self, text: str, /, *, level: Level = "info", **fields: Any) -> None:
        """Announce an event, as `Say` does."""

    def show(self, unfinished: Unfinished) -> None:
        """Show how much of a drain is left."""

    def catch_up(self) -> None:
        """Write what could not be written before."""

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        ...
