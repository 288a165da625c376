"""The page of `flows status`, and the parts of `flows top` that are the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from flows.cli.fitting import Column, table_or_blocks

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flows.supervisor.state import ProcessState, SupervisorState

__all__ = ["duration", "headline", "megabytes", "print_status", "process_table"]

_DROPPED = {"gen": 1, "finished": 2, "pid": 3}
"""What is left out first where the table is too wide."""

_COLORS = {"ready": "green", "booting": "yellow", "retiring": "yellow", "waiting": "red"}


def print_status(state: SupervisorState) -> None:
    """Print the state of a supervisor to stdout."""
    width = None if sys.stdout.isatty() else 120
    console = Console(file=sys.stdout, width=width, highlight=False)
    console.print(headline(state))
    console.print(process_table(state, console.width))
    for process in state.processes:
        for line in _troubles(process):
            console.print(Text(line))


def headline(state: SupervisorState) -> Text:
    """Return the first line of a page, and a second one while the database is away."""
    line = Text(
        f"{state.app}  {state.state}, pid {state.pid}, up {duration(state.age_s)},"
        f" generation {state.generation}",
        style="bold",
    )
    if state.database_silent_s is not None:
        silent = f"\nthe database has not answered for {duration(state.database_silent_s)}"
        line.append(silent, style="bold red")
    return line


def process_table(state: SupervisorState, width: int) -> RenderableType:
    """Return a line per process, or a block of lines where they do not fit."""
    columns = [Column("process", least=16), Column("state")]
    names = ("pid", "gen", "up", "busy", "finished", "restarts", "memory")
    columns += [Column(name, right=True, drop=_DROPPED.get(name, 0)) for name in names]
    rows = []
    for each in state.processes:
        color = "bold red" if each.state == "broken" else _COLORS.get(each.state, "")
        cells = (
            _number(each.pid),
            _number(each.generation),
            "" if each.age_s is None else duration(each.age_s),
            f"{len(each.executing)}/{each.executors}" if each.executors else "",
            str(each.finished) if each.executors else "",
            str(each.restarts) if each.restarts else "",
            megabytes(each.rss),
        )
        rows.append([Text(each.name), Text(each.state, style=color), *map(Text, cells)])
    return table_or_blocks(columns, rows, width)


def duration(seconds: float) -> str:
    """Return a duration as a person says it, as in "1 h 05 min"."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02} h"


def megabytes(size: int | None) -> str:
    """Return an amount of memory."""
    return "" if size is None else f"{size / 2**20:.0f} MiB"


def _troubles(process: ProcessState) -> list[str]:
    """Say what a person should know about a process."""
    lines = []
    if process.state == "broken":
        lines.append(f"{process.name} is broken: its runs are not executed")
    if process.due_s is not None:
        lines.append(f"{process.name}: the next try is in {duration(process.due_s)}")
    if process.last_exit is not None:
        lines.append(f"the last exit: {process.last_exit}")
    if process.silent_s is not None and process.silent_s >= 10:
        lines.append(f"{process.name}: no Python has run in it for {duration(process.silent_s)}")
    return lines


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
