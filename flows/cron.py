"""Cron expressions: when a schedule is due, in a time zone.

    minute  hour  day of month  month  day of week
    0-59    0-23  1-31          1-12   0-7, Sunday is 0 and 7

A field is `*`, `N`, `N-M`, `*/S`, `N-M/S`, or several of these with commas. If both day fields are
restricted, which any field but a plain `*` is, a day that matches either is due. These are the
rules of the reference package, and those of POSIX but for `*/S`, which POSIX does not have.

Days on which clocks are changed: a local time that is skipped is due once, at the instant where
the clock goes on; one that occurs twice is due the first time only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim

from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CronSchedule", "parse_cron"]

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12))
_DAY_OF_WEEK = ("day of week", 0, 7)
_ITEM = re.compile(
    r"(?:\*|(?P<first>\d{1,4})(?:-(?P<last>\d{1,4}))?)(?:/(?P<step>\d{1,4}))?\Z", re.ASCII
)
_LONGEST_MONTHS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_A_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class CronSchedule:
    """A cron expression of five fields; made by `parse_cron`.

    Attributes:
        expression: the text it was parsed from, with single spaces; also its `str()`.
        timezone: the IANA name of the zone whose clock it goes by.
    """

    expression: str
    timezone: str = "UTC"
    _matcher: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = self.expression.split()
        if len(fields) != 5:
            raise ConfigError(
                f"cron expression {self.expression!r} has {len(fields)} fields, not 5:"
                " minute hour day-of-month month day-of-week"
            )
        object.__setattr__(self, "expression", " ".join(fields))
        try:
            values = [
                _parse_field(text, *limits)
                for text, limits in zip(fields, (*_FIELDS, _DAY_OF_WEEK), strict=True)
            ]
        except ValueError as error:
            raise ConfigError(f"cron expression {self.expression!r}: {error}") from None
        _, _, days, months, weekdays = values
        if weekdays is None and days and not _is_possible(days, months):
            raise ConfigError(f"cron expression {self.expression!r} never matches: no such date")
        object.__setattr__(self, "_matcher", " ".join(map(_spelled_out, values)))
        _zone(self.timezone)

    def __str__(self) -> str:
        return self.expression

    def next(self, after: datetime) -> datetime:
        """Return the first instant strictly after `after` that matches, in UTC.

        Args:
            after: an aware time.
        """
        for local in self._locals(_naive(after, self._zone)):
            instant = _instant(local, self._zone)
            if instant > after:
                return instant
        raise AssertionError("a schedule that can match always matches again")

    def latest(self, until: datetime) -> datetime:
        """Return the last instant not after `until` that matches, in UTC.

        Args:
            until: an aware time.
        """
        local = _naive(until, self._zone)
        # Of an hour that occurs twice, all is due in the first: so look from its end.
        first = until.astimezone(self._zone).replace(fold=0)
        offset = first.utcoffset() or timedelta()
        begin = max(local, (until.astimezone(UTC) + offset).replace(tzinfo=None))
        for candidate in self._locals(begin + _A_MINUTE, reverse=True):
            instant = _instant(candidate, self._zone)
            if instant <= until:
                return instant
        raise AssertionError("a schedule that can match has always matched before")

    @cached_property
    def _zone(self) -> ZoneInfo:
        return _zone(self.timezone)

    def _locals(self, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        return CronSim(self._matcher, start, reverse=reverse)


def parse_cron(expression: str, timezone: str = "UTC") -> CronSchedule:
    """Read a cron expression of five fields.

    Args:
        expression: minute, hour, day of month, month, day of week; as in the reference package.
        timezone: the IANA name of the zone whose clock it goes by, as in "Europe/Berlin".

    Raises:
        ConfigError: it cannot be read, can never match, or the zone is unknown.
    """
    if not isinstance(expression, str):
        raise ConfigError(f"a cron expression must be text, not {expression!r}")
    return CronSchedule(expression, timezone)


def _parse_field(text: str, name: str, lowest: int, highest: int) -> frozenset[int] | None:
    """Return the values of a field, None for `*`."""
    if text == "*":
        return None
    values: set[int] = set()
    for item in text.split(","):
        match = _ITEM.match(item)
        if match is None or (match["step"] and match["first"] and not match["last"]):
            raise ValueError(f"{item!r} in field {name} is none of *, N, N-M, */S, N-M/S")
        first = lowest if match["first"] is None else int(match["first"])
        last = int(match["last"] or match["first"] or highest)
        if not lowest <= first <= highest or not lowest <= last <= highest:
            raise ValueError(f"{item!r} in field {name} is out of range {lowest}-{highest}")
        if first > last:
            raise ValueError(f"{item!r} in field {name} goes backwards")
        step = 1 if match["step"] is None else int(match["step"])
        if step < 1:
            raise ValueError(f"{item!r} in field {name} has no step")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _spelled_out(values: frozenset[int] | None) -> str:
    """Return a field so that every cron library reads the same in it."""
    return "*" if values is None else ",".join(map(str, sorted(values)))


def _is_possible(days: frozenset[int], months: frozenset[int] | None) -> bool:
    return any(min(days) <= _LONGEST_MONTHS.get(month, 31) for month in months or range(1, 13))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"time zone {name!r} is unknown here: give an IANA name such as Europe/Berlin"
            " (where a machine has no zones at all, install the package tzdata)"
        ) from error


def _naive(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when a clock in a zone first shows a time, or goes on where it skips it."""
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    if _naive(instant, zone) == local:
        return instant
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    # The clock is changed between these two: `before` has the old offset, `instant` the new.
    offset = instant.astimezone(zone).utcoffset()
    while instant - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(instant - before).total_seconds() // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            instant = middle
        else:
            before = middle
    return instant
