"""A run on a page that a person can read: what it is, what happened in it, and its error."""

from __future__ import annotations

import io
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.plain import one_line, printable, shortened
from flows.cli.quantities import duration, size
from flows.cli.run_details import placed
from flows.cli.run_order import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from flows.cli.run_details import CrashRecord, Event, Random, RunDetails, Step, Stored, Wait

__all__ = ["page_of"]

PLAIN_WIDTH = 80
LONGEST_VALUE = 1000
LONGEST_MEMO = 120

_STYLES = {
    "completed": "green",
    "satisfied": "green",
    "failed": "red",
    "crashed": "red",
    "cancelled": "yellow",
    "open": "cyan",
}


class _Entry(NamedTuple):
    """A line of the timeline."""

    at: datetime
    what: str
    key: str
    status: str = ""
    tries: str = ""
    took: str = ""
    detail: str = ""
    placed: tuple[int, int] | None = None


def page_of(run: RunDetails, *, on_terminal: bool) -> str:
    """Return a page as text: in colour and as wide as the terminal where it is for one."""
    page = io.StringIO()
    width = None if on_terminal else PLAIN_WIDTH
    console = Console(file=page, force_terminal=on_terminal, width=width, highlight=False)
    console.print(Text(printable(run.run_key), style="bold"), soft_wrap=True)
    console.print(_head(run))
    entries = in_order([*_entries(run)], attrgetter("at"), attrgetter("placed"))
    if entries:
        console.print()
        console.print(_timeline(entries, run.created_at))
    if run.error:
        console.print()
        # Not folded: a traceback is copied, and searched for the places it names.
        console.print(Text(printable(run.error.rstrip(), keep="\n"), "red"), soft_wrap=True)
    # Tables are padded to their width, which whoever copies a line does not want.
    return "".join(f"{line.rstrip(' ')}\n" for line in page.getvalue().split("\n")[:-1])


def _head(run: RunDetails) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, told in _facts(run):
        grid.add_row(name, told)
    return grid


def _facts(run: RunDetails) -> Iterator[tuple[str, Text]]:
    yield "status", Text(run.status, _STYLES.get(run.status, "cyan"))
    for number, reason in enumerate(run.why):
        yield "" if number else "why", Text(printable(reason))
    if run.worker is not None:
        yield "worker", Text(printable(f"process {run.worker.pid} on {run.worker.host}"))
    if run.attempts or run.crashes:
        crashes = f", {run.crashes} crashed" if run.crashes else ""
        alone = "; runs alone next time" if run.is_suspect and run.status == "queued" else ""
        yield "attempts", Text(f"{run.attempts} failed{crashes}{alone}")
    yield from _origin(run)
    if run.input is not None:
        yield "input", Text(_value(run.input, LONGEST_VALUE))
    if run.output is not None:
        yield "output", Text(_value(run.output, LONGEST_VALUE))


def _origin(run: RunDetails) -> Iterator[tuple[str, Text]]:
    yield "begun", Text(_instant(run.created_at))
    for name, at in (("started", run.started_at), ("finished", run.finished_at)):
        if at is not None:
            yield name, Text(f"{_instant(at)}, after {_length(at - run.created_at)}")
    yield from _prospects(run)
    if run.priority:
        yield "priority", Text(str(run.priority))
    if run.tags:
        yield "tags", Text(printable(", ".join(run.tags)))
    if run.idempotency_key is not None:
        yield "once by key", Text(shortened(printable(run.idempotency_key), LONGEST_MEMO))


def _prospects(run: RunDetails) -> Iterator[tuple[str, Text]]:
    if run.next_wake_at is not None:
        yield "wakes", Text(_until(run.next_wake_at, run.read_at))
    if run.deadline is not None and run.finished_at is None:
        yield "deadline", Text(_until(run.deadline, run.read_at))
    if run.cancel_requested_at is not None:
        yield "cancel", Text(f"asked for {_instant(run.cancel_requested_at)}")


def _timeline(entries: list[_Entry], begun: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("at", justify="right", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("key and value", overflow="fold")
    for entry in entries:
        told = Text(printable(entry.key))
        if entry.detail:
            told.append(f"\n{entry.detail}", "dim")
        table.add_row(
            f"+{_length(entry.at - begun)}" if entry.at >= begun else "before",
            entry.what,
            Text(entry.status, _STYLES.get(entry.status, "")),
            entry.tries,
            entry.took,
            told,
        )
    return table


def _entries(run: RunDetails) -> Iterator[_Entry]:
    yield from map(_step_entry, run.steps)
    for wait in run.waits:
        yield _wait_entry(wait, run.read_at)
    yield from map(_event_entry, run.events)
    yield from map(_random_entry, run.random)
    yield from map(_crash_entry, run.crash_history)


def _step_entry(step: Step) -> _Entry:
    if step.error:
        detail = shortened(printable(step.error.partition("\n")[0]), LONGEST_MEMO)
    else:
        detail = _memo(step.output)
    return _Entry(
        step.started_at,
        "step",
        step.key,
        printable(step.status),
        str(step.attempts),
        duration(step.seconds),
        detail,
        placed(step),
    )


def _crash_entry(crash: CrashRecord) -> _Entry:
    where = f"in step {crash.step_key}" if crash.step_key else "between steps"
    detail = f"process {crash.pid} on {crash.host}, {where}"
    return _Entry(crash.at, "crash", crash.cause, "crashed", detail=printable(detail))


def _wait_entry(wait: Wait, now: datetime) -> _Entry:
    is_open = wait.satisfied_at is None
    key, detail = wait.key, _memo(wait.payload)
    if wait.event_name is not None:
        key = f"{wait.key} for {wait.event_name}"
    elif is_open and wait.wake_at is not None:
        detail = _until(wait.wake_at, now)
    return _Entry(
        wait.started_at,
        "sleep" if wait.type == "sleep" else "wait",
        key,
        "open" if is_open else "satisfied",
        took="" if wait.seconds is None else duration(wait.seconds),
        detail=detail,
        placed=placed(wait),
    )


def _event_entry(event: Event) -> _Entry:
    return _Entry(event.published_at, "event", event.name, detail=_memo(event.payload))


def _random_entry(random: Random) -> _Entry:
    what = {"uuidv7": "uuid"}.get(random.kind, random.kind)
    return _Entry(
        random.created_at,
        printable(what),
        random.key,
        detail=str(random.value),
        placed=placed(random),
    )


def _memo(stored: Stored | None) -> str:
    return "" if stored is None else _value(stored, LONGEST_MEMO)


def _value(stored: Stored, length: int) -> str:
    if stored.undecodable is not None:
        reason = shortened(printable(stored.undecodable), LONGEST_MEMO)
        return f"{size(stored.size)} written by codec {stored.codec!r}: {reason}"
    text = one_line(stored.value)
    if len(text) <= length:
        return text
    return f"{shortened(text, length)} ({size(stored.size)}, whole with --json)"


def _instant(at: datetime) -> str:
    """Return an instant in the time zone of whoever reads it."""
    return at.astimezone().isoformat(" ", "milliseconds")


def _until(at: datetime, now: datetime) -> str:
    return f"{_instant(at)}, {f'in {_length(at - now)}' if at > now else 'now'}"


def _length(span: timedelta) -> str:
    return duration(span.total_seconds())
