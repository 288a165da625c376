"""The state of a supervisor as a document: what `flows status` and `flows top` show.

Durations are in seconds, sizes in bytes.
"""

from __future__ import annotations

import msgspec

__all__ = ["ExecutingState", "ProcessState", "SupervisorState"]


class ExecutingState(msgspec.Struct, frozen=True):
    """A run that is being executed.

    Attributes:
        run: its id.
        attempt: which attempt it is, from 1.
        for_s: since it began.
        step: the key of the step that is running, None between steps.
        step_for_s: since that was called.
    """

    run: str
    attempt: int
    for_s: float
    step: str | None = None
    step_for_s: float | None = None


class ProcessState(msgspec.Struct, frozen=True):
    """A process, or the place of one that is to be started.

    Attributes:
        name: as in "worker render [1/2]".
        workflow: whose runs it executes; None for maintenance.
        state: booting, ready, retiring, waiting (for its restart), broken.
        pid: None where there is no process.
        generation: of the application's code.
        age_s: since it was started.
        due_s: until the next one is started.
        restarts: how often a process was replaced here because it had died.
        last_exit: how the last of them ended.
        executors: how many it has.
        executing: what they do.
        finished: attempts that have ended in this process.
        rss: resident memory, None where the system does not tell.
        silent_s: since any Python ran in its main thread; some seconds are nothing.
    """

    name: str
    workflow: str | None
    state: str
    pid: int | None = None
    generation: int | None = None
    age_s: float | None = None
    due_s: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    executors: int = 0
    executing: tuple[ExecutingState, ...] = ()
    finished: int = 0
    rss: int | None = None
    silent_s: float | None = None


class SupervisorState(msgspec.Struct, frozen=True):
    """A supervisor and its processes.

    Attributes:
        app: as it was given.
        pid: of the supervisor.
        state: preparing, running, stopping, reporting, closing.
        generation: of the code that new processes run.
        age_s: since it was started.
        processes: maintenance first.
        database_silent_s: for how long the database has not answered; None if it does.
    """

    app: str
    pid: int
    state: str
    generation: int
    age_s: float
    processes: tuple[ProcessState, ...]
    database_silent_s: float | None = None
