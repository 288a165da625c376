"""Schedules as `flows schedules` reads and prints them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows import sql
from flows.cli.output import Refusal
from flows.cli.plain import one_line, printable, shortened
from flows.cli.quantities import duration
from flows.cli.run_details import Stored, take_payload
from flows.cron import CronSchedule
from flows.errors import ConfigError, UnknownScheduleError
from flows.schedules import ScheduleOptions, parse_schedule, plan_ticks

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from flows.database import Connection
    from flows.schedules import EverySchedule

__all__ = [
    "ScheduleDetails",
    "as_json",
    "page_of",
    "preview_of",
    "read_schedule",
    "read_schedules",
    "table_of",
]

PLAIN_WIDTH = 100
LONGEST_VALUE = 1000


class ScheduleDetails(msgspec.Struct, frozen=True):
    """A schedule. What `flows schedules show --json` prints has these names.

    Attributes:
        schedule_id: its name.
        workflow_name: whose runs it begins.
        rule: a cron expression, or `@every` and a duration.
        timezone: the zone of a cron expression, None for UTC.
        enabled: False while it is paused, and when it cannot be fired.
        next_run_at: when it is due next, if it is enabled.
        last_run_at: when it last began a run.
        last_run: the key of that.
        catch_up: what becomes of missed ticks: skip, latest or all.
        catch_up_limit: with "all", at most so many.
        overlap: whether a run may begin while the one before is unfinished: allow or skip.
        jitter: by how many seconds at most a run is put off.
        error: why it cannot be fired.
        why: why it is due and has not been fired, None where it is about to be.
        created_at: when it was created.
        updated_at: when it was fired or changed last.
        read_at: the database's time of this look.
        input: what its runs are given.
    """

    schedule_id: str
    workflow_name: str
    rule: str
    timezone: str | None
    enabled: bool
    next_run_at: datetime
    last_run_at: datetime | None
    last_run: str | None
    catch_up: str
    catch_up_limit: int
    overlap: str
    jitter: float
    error: str | None
    created_at: datetime
    updated_at: datetime
    read_at: datetime
    input: Stored | None
    why: str | None = None

    @property
    def state(self) -> str:
        """In a word: "on", "paused", or "broken" where it cannot be fired."""
        if self.enabled:
            return "on"
        return "broken" if self.error else "paused"

    @property
    def is_due(self) -> bool:
        """Whether its time has come."""
        return self.enabled and self.next_run_at <= self.read_at

    def parse(self) -> CronSchedule | EverySchedule:
        """Return the rule.

        Raises:
            Refusal: it cannot be read.
        """
        try:
            return parse_schedule(self.rule, self.timezone)
        except ConfigError as error:
            raise Refusal(f"schedule {self.schedule_id!r} cannot be fired: {error}") from error


def read_schedules(connection: Connection, schema: str) -> list[ScheduleDetails]:
    """Read all schedules, by name."""
    return _read(connection, schema, None)


def read_schedule(connection: Connection, schema: str, schedule_id: str) -> ScheduleDetails:
    """Read one schedule.

    Raises:
        UnknownScheduleError: there is none of that name.
    """
    found = _read(connection, schema, schedule_id)
    if not found:
        raise UnknownScheduleError(schedule_id)
    return found[0]


def as_json(found: ScheduleDetails | list[ScheduleDetails]) -> str:
    """Return schedules as JSON."""
    return json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=2) + "\n"


def table_of(found: list[ScheduleDetails]) -> str:
    """Return a line per schedule."""
    if not found:
        return "no schedules\n"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("schedule", "workflow", "rule"):
        table.add_column(name, overflow="fold")
    for name in ("state", "next", "last run"):
        table.add_column(name, no_wrap=True)
    for each in found:
        due = _until(each.next_run_at - each.read_at) if each.enabled else ""
        last = each.last_run_at
        table.add_row(
            Text(printable(each.schedule_id)),
            Text(printable(each.workflow_name)),
            Text(printable(_rule(each))),
            each.state,
            due,
            "" if last is None else f"{duration((each.read_at - last).total_seconds())} ago",
        )
    told = ((each.schedule_id, each.error or each.why) for each in found)
    notes = [f"{name}: {why}" for name, why in told if why]
    return _render(table) + "".join(f"{printable(note)}\n" for note in notes)


def page_of(each: ScheduleDetails) -> str:
    """Return all that is known of a schedule."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    missed = f"{each.catch_up} (at most {each.catch_up_limit})"
    facts: list[tuple[str, Any]] = [
        ("schedule", each.schedule_id),
        ("workflow", each.workflow_name),
        ("rule", _rule(each)),
        ("state", each.state),
        ("error", each.error),
        ("why", each.why),
        ("next", f"{_instant(each.next_run_at)}, {_until(each.next_run_at - each.read_at)}"),
        ("last run", each.last_run_at and f"{_instant(each.last_run_at)}, {each.last_run}"),
        ("missed ticks", missed if each.catch_up == "all" else each.catch_up),
        ("overlap", each.overlap),
        ("jitter", duration(each.jitter) if each.jitter else None),
        ("input", each.input and _value(each.input)),
        ("created", _instant(each.created_at)),
        ("updated", _instant(each.updated_at)),
    ]
    for name, value in facts:
        if value is not None and (name != "next" or each.enabled):
            grid.add_row(name, Text(printable(str(value))))
    return _render(grid)


def preview_of(each: ScheduleDetails, count: int) -> str:
    """Return the next times of a schedule, in its zone and in UTC, a line each."""
    schedule = each.parse()
    tick = each.next_run_at
    if not each.enabled and tick <= each.read_at:
        tick = plan_ticks(schedule, tick, each.read_at, ScheduleOptions()).next
    lines = []
    for _ in range(count):
        local = tick.astimezone(_zone_of(schedule))
        utc = tick.astimezone(UTC)
        lines.append(f"{local:%a %Y-%m-%d %H:%M:%S%z}  {utc:%Y-%m-%dT%H:%M:%SZ}\n")
        tick = schedule.next(tick)
    if not each.enabled:
        lines.insert(0, f"{each.state}: it would be due\n")
    return "".join(lines)


def _read(connection: Connection, schema: str, schedule_id: str | None) -> list[ScheduleDetails]:
    with connection.cursor(row_factory=dict_row) as cursor:
        values = {"schedule_id": schedule_id}
        rows = cursor.execute(sql.load("show_schedules", schema), values).fetchall()
    # The payload first: it takes its columns out of the row.
    found = [ScheduleDetails(input=take_payload(row, "input"), **row) for row in rows]
    due = {each.workflow_name for each in found if each.is_due}
    unattended = {name for name in due if not _count_workers(connection, schema, name)}
    return [_explained(each, unattended) for each in found]


def _explained(each: ScheduleDetails, unattended: Collection[str]) -> ScheduleDetails:
    if not each.is_due or each.workflow_name not in unattended:
        return each
    why = f"it is due, and no live worker executes workflow {each.workflow_name!r}: start one"
    return msgspec.structs.replace(each, why=why)


def _count_workers(connection: Connection, schema: str, workflow_name: str) -> int:
    query = sql.load("count_live_workers", schema)
    row = connection.execute(query, {"workflow_name": workflow_name}).fetchone()
    assert row is not None
    return int(row[0])


def _rule(each: ScheduleDetails) -> str:
    return f"{each.rule} ({each.timezone})" if each.timezone else each.rule


def _zone_of(schedule: CronSchedule | EverySchedule) -> ZoneInfo:
    return ZoneInfo(schedule.timezone) if isinstance(schedule, CronSchedule) else ZoneInfo("UTC")


def _until(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "due"


def _instant(at: datetime) -> str:
    """Return an instant in the time zone of whoever reads it."""
    return at.astimezone().isoformat(" ", "seconds")


def _value(stored: Stored) -> str:
    return stored.undecodable or shortened(one_line(stored.value), LONGEST_VALUE)


def _render(table: Table) -> str:
    page = io.StringIO()
    Console(file=page, width=PLAIN_WIDTH, highlight=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().split("\n")[:-1])
