"""What the person at the terminal sees of a supervisor: a line per event, and how far it is."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from flows import clock
from flows.supervisor.outlet import Outlet
from flows.supervisor.stack_records import StackRecord, StackRecords
from flows.supervisor.streams import RECORD, LogStyle

if TYPE_CHECKING:
    from rich.progress import Progress

    from flows.supervisor.messages import Unfinished
    from flows.supervisor.plan import Level

__all__ = ["LineConsole", "TerminalConsole", "describe_unfinished", "open_console", "terminals"]

_PROGRESS_LINE_S = 5.0

_LAST_WORDS_S = 1.0
"""How long to wait at the end for a stderr that takes nothing."""


def terminals() -> frozenset[int]:
    """Return which of stdin, stdout and stderr are terminals now; one that was closed is none."""
    return frozenset(fd for fd in range(3) if os.isatty(fd))


class LineConsole:
    """Writes lines to stderr; progress every few seconds, and only when it has changed."""

    def __init__(self, style: LogStyle = LogStyle()) -> None:  # noqa: B008  immutable
        """Prepare to write in a style."""
        self._is_json = style.format == "json"
        self._outlet = Outlet(2, lambda text: self._event(text, "warning", {}))
        self._stacks = StackRecords()
        self._next_s = 0.0
        self._last = ""

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return self._outlet.is_behind or self._stacks.is_open

    def catch_up(self) -> None:
        """Write what stderr did not take before, and stacks to which nothing more comes."""
        self._write_stacks(self._stacks.take_whole(clock.monotonic()))
        self._outlet.flush()

    def say(self, text: str, /, *, level: Level = "info", **fields: Any) -> None:
        """Announce an event; its fields are for those who read JSON."""
        self._write_stacks(self._stacks.take())
        for line in [text] if self._is_json else text.splitlines():
            self._write(self._event(line, level, fields))

    def pass_on(self, process: str, pid: int, line: str) -> None:
        """Write a line of a child's output.

        Args:
            process: as in "worker render [1/2]".
            pid: of the child.
            line: the text, or a log record as JSON.
        """
        if not self._is_json:
            self._write(f"{process} | {line}")
            return
        taken = self._stacks.feed(process, pid, line, clock.monotonic())
        self._write_stacks(taken.records)
        if taken.is_of_stack:
            return
        self._write(_as_json({"process": process, "pid": pid, **_fields(line)}))

    def show(self, unfinished: Unfinished) -> None:
        """Show how much of a drain is left."""
        now_s = clock.monotonic()
        text = describe_unfinished(unfinished)
        if now_s >= self._next_s and text != self._last:
            self._next_s = now_s + _PROGRESS_LINE_S
            self._last = text
            self.say(f"unfinished: {text}")

    def close(self) -> None:
        """Write what is left, for a moment, and leave the terminal as it was."""
        self._write_stacks(self._stacks.take())
        self._outlet.flush(_LAST_WORDS_S)

    def _event(self, text: str, level: Level, fields: dict[str, Any]) -> str:
        if not self._is_json:
            return f"flows: {text}"
        document = {"process": "supervisor", "pid": os.getpid(), "level": level, "message": text}
        return _as_json(document | {k: v for k, v in fields.items() if v is not None})

    def _write_stacks(self, records: list[StackRecord]) -> None:
        for each in records:
            self._write(_as_json(msgspec.structs.asdict(each)))

    def _write(self, line: str) -> None:
        self._outlet.write(line)


def _fields(line: str) -> dict[str, Any]:
    """Return what a line says: a record as JSON does so itself, unless it was cut short."""
    text = line.removeprefix(RECORD)
    if text != line:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=dict[str, Any])
    return {"message": text}


def _as_json(document: dict[str, Any]) -> str:
    now = datetime.fromtimestamp(clock.unix_ms() / 1000, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode({"time": now, **document}).decode()


class TerminalConsole(LineConsole):
    """Shows progress as a bar below the lines of events.

    The bar is drawn when there is news and never by a thread: the supervisor has only one.
    """

    def __init__(self, style: LogStyle) -> None:
        """Prepare to write in a style."""
        super().__init__(style)
        from rich.console import Console  # noqa: PLC0415  only a drain on a terminal needs it
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._bar: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
        )
        self._task = self._bar.add_task("draining", total=None, state="")
        self._most = 0
        self._shown = False

    def _write(self, line: str) -> None:
        """Write a line above the bar."""
        if self._shown:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            super()._write(line)

    def show(self, unfinished: Unfinished) -> None:
        """Show how much of a drain is left, against the most that was seen."""
        left = sum(sum(counts.values()) for counts in unfinished.values())
        self._most = max(self._most, left)
        if not self._shown:
            self._bar.start()
            self._shown = True
        self._bar.update(
            self._task,
            total=self._most,
            completed=self._most - left,
            state=describe_unfinished(unfinished),
        )
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._bar.stop()
            self._shown = False
        super().close()


def describe_unfinished(unfinished: Unfinished) -> str:
    """Return the counts as text, as in "census 1 waiting_event; file 80 queued, 2 running"."""
    parts = []
    for name, counts in sorted(unfinished.items()):
        states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count)
        if states:
            parts.append(f"{name} {states}")
    return "; ".join(parts) or "nothing"


def open_console(style: LogStyle, *, drain: bool) -> LineConsole:
    """Return the console that suits what stderr is."""
    is_plain = style.format == "json" or not (drain and sys.stderr.isatty())
    return LineConsole(style) if is_plain else TerminalConsole(style)
