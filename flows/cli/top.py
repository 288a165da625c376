"""`flows top`: a running supervisor, watched."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from pathlib import Path  # noqa: TC003  click looks at the annotations of nobody, but mypy does
from typing import TYPE_CHECKING, Any

import click

from flows.cli.control import ControlError, ask, control_option, find
from flows.cli.options import Seconds, debug_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Group

    from flows.supervisor.state import SupervisorState

__all__ = ["top"]

_MOST_RUNS = 15

_DROPPED = {"memory": 1, "restarts": 2}
"""What is left out first where the table of workflows is too wide."""

Queues = dict[str, dict[str, int]]
"""Unfinished runs: workflow, then status, then how many."""


@click.command()
@click.option(
    "--interval",
    type=Seconds(0.2),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@control_option
@debug_option
def top(*, interval: float, control: Path | None) -> None:
    """Watch a running supervisor: queues, throughput, runs, memory. The key q ends it."""
    from rich.console import Console  # noqa: PLC0415  --help needs none of it
    from rich.live import Live  # noqa: PLC0415

    frames = _Frames(find(control))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.print(frames.next(console.width))
        return
    with _keys() as wait_for_q, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(frames.next(console.width), refresh=True)
            if wait_for_q(interval):
                return


class _Frames:
    """Asks the supervisor, and remembers what it said to tell what has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._finished: dict[str, tuple[float, dict[int, int]]] = {}

    def next(self, width: int) -> Group:
        """Return the next frame, for a terminal of `width` columns.

        Raises:
            ControlError: the supervisor is gone.
        """
        import msgspec  # noqa: PLC0415  --help needs none of it
        from rich.console import Group  # noqa: PLC0415

        from flows.cli.status_page import headline  # noqa: PLC0415
        from flows.supervisor.state import SupervisorState  # noqa: PLC0415

        answer = ask(self._path, {"do": "status"}, patient=False)
        state = msgspec.convert(answer["status"], SupervisorState)
        queues: Queues | None = None
        # Without maintenance, or its database, the rest is worth seeing all the more.
        with contextlib.suppress(ControlError):
            queues = ask(self._path, {"do": "queues"}, patient=False)["queues"]
        return Group(headline(state), self._workflows(state, queues, width), _runs(state, width))

    def _workflows(self, state: SupervisorState, queues: Queues | None, width: int) -> Any:
        from rich.text import Text  # noqa: PLC0415

        from flows.cli.fitting import Column, table_or_blocks  # noqa: PLC0415
        from flows.cli.status_page import megabytes  # noqa: PLC0415

        names = ("queued", "waiting", "busy", "runs/s", "processes", "restarts", "memory")
        columns = [Column("workflow", least=16)]
        columns += [Column(name, right=True, drop=_DROPPED.get(name, 0)) for name in names]
        rows = []
        for workflow in dict.fromkeys(each.workflow for each in state.processes):
            if workflow is None:
                continue
            mine = [each for each in state.processes if each.workflow == workflow]
            live = [each for each in mine if each.pid is not None]
            counts = (queues or {}).get(workflow, {})
            finished = {each.pid or 0: each.finished for each in live}
            rate = self._rate(workflow, state.age_s, finished)
            busy = sum(len(each.executing) for each in live)
            executors = sum(each.executors for each in live)
            is_broken = any(each.state == "broken" for each in mine)
            waiting = counts.get("sleeping", 0) + counts.get("waiting_event", 0)
            cells = (
                workflow,
                str(counts.get("queued", 0)) if queues is not None else "?",
                str(waiting) if queues is not None else "?",
                f"{busy}/{executors}",
                "" if rate is None else f"{rate:.1f}",
                Text("broken", style="bold red") if is_broken else str(len(live)),
                str(sum(each.restarts for each in mine)),
                megabytes(sum(each.rss or 0 for each in live) or None),
            )
            rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])
        return table_or_blocks(columns, rows, width)

    def _rate(self, workflow: str, now_s: float, finished: dict[int, int]) -> float | None:
        """Return how many attempts have ended a second since the last frame."""
        before = self._finished.get(workflow)
        self._finished[workflow] = (now_s, finished)
        if before is None or now_s <= before[0]:
            return None
        ended = sum(max(0, count - before[1].get(pid, 0)) for pid, count in finished.items())
        return ended / (now_s - before[0])


def _runs(state: SupervisorState, width: int) -> Any:
    """Return the runs that are being executed, the longest first."""
    from rich.text import Text  # noqa: PLC0415

    from flows.cli.fitting import Column, table_or_blocks  # noqa: PLC0415
    from flows.cli.status_page import duration  # noqa: PLC0415

    columns = [
        Column("run"),
        Column("of", least=12),
        Column("for", right=True),
        Column("step", least=12),
        Column("for", right=True, label="in the step for"),
    ]
    rows = []
    runs = [(each, run) for each in state.processes for run in each.executing]
    runs.sort(key=lambda pair: -pair[1].for_s)
    for each, run in runs[:_MOST_RUNS]:
        step_for = "" if run.step_for_s is None else duration(run.step_for_s)
        name = each.workflow or each.name
        cells = (run.run, name, duration(run.for_s), run.step or "", step_for)
        rows.append([Text(cell) for cell in cells])
    if len(runs) > _MOST_RUNS:
        rows.append([Text(f"and {len(runs) - _MOST_RUNS} more"), *([Text("")] * 4)])
    return table_or_blocks(columns, rows, width)


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Give a function that waits for the key q; keys are not shown meanwhile."""
    fd = sys.stdin.fileno()
    if not os.isatty(fd):
        yield lambda timeout_s: bool(select.select([], [], [], timeout_s)[0])
        return
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield lambda timeout_s: bool(
            select.select([fd], [], [], timeout_s)[0] and os.read(fd, 64) in (b"q", b"Q")
        )
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
