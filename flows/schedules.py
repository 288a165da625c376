"""Schedules: rules that say when runs of a workflow begin, and what becomes of missed times."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, get_args, runtime_checkable

from flows.clock import LONGEST
from flows.cron import CronSchedule, parse_cron
from flows.errors import ConfigError

__all__ = [
    "CatchUp",
    "EverySchedule",
    "Overlap",
    "Schedule",
    "ScheduleOptions",
    "Ticks",
    "every",
    "jitter_of",
    "parse_schedule",
    "plan_ticks",
    "tick_run_id",
    "timezone_of",
]

CatchUp = Literal["skip", "latest", "all"]
"""What becomes of ticks that nobody could fire in time: none, the latest, or all of them."""

Overlap = Literal["allow", "skip"]
"""Whether a tick begins a run while the run before it is unfinished."""

ON_TIME = timedelta(minutes=1)
"""A tick that is fired within this of its time counts as not missed."""

MAX_CATCH_UP = 10_000

_EVERY = "@every "
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_PART = re.compile(r"([\d.]+)(\D+)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


@runtime_checkable
class Schedule(Protocol):
    """When runs begin. Its `str()` is what is stored, so `parse_schedule` must read it back."""

    def next(self, after: datetime) -> datetime:
        """Return the first time strictly after `after`; the same for the same argument."""
        ...


@dataclass(frozen=True, slots=True)
class EverySchedule:
    """A schedule of equal intervals; made by `every`.

    Attributes:
        interval: from one time to the next, positive.
    """

    interval: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.interval, timedelta):
            raise ConfigError(f"an interval must be a timedelta, not {self.interval!r}")
        if self.interval <= timedelta():
            raise ConfigError(f"an interval must be positive, not {self.interval}")

    def __str__(self) -> str:
        return _EVERY + _write_duration(self.interval)

    def next(self, after: datetime) -> datetime:
        """Return `after` and the interval."""
        return after + self.interval


def every(interval: timedelta) -> EverySchedule:
    """Return a schedule of equal intervals, counted from when it is stored.

    Raises:
        ConfigError: the interval is not positive.
    """
    return EverySchedule(interval)


def parse_schedule(text: str, timezone: str | None = None) -> CronSchedule | EverySchedule:
    """Read a schedule from its stored text: `@every 1m30s`, or a cron expression.

    Args:
        text: as `str()` of a schedule gives it. Durations are written as Go's are.
        timezone: the IANA name of a cron expression's zone, None for UTC.

    Raises:
        ConfigError: it cannot be read, or the zone is unknown.
    """
    if text.startswith(_EVERY):
        return EverySchedule(_read_duration(text.removeprefix(_EVERY).strip()))
    return parse_cron(text, timezone or "UTC")


def timezone_of(schedule: Schedule) -> str | None:
    """Return the zone that is stored beside a schedule's text, None where there is none."""
    timezone = getattr(schedule, "timezone", None)
    return timezone if isinstance(timezone, str) else None


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """What becomes of times that cannot simply be kept.

    Attributes:
        catch_up: of ticks missed in a downtime, begin none, the latest, or all.
        catch_up_limit: with "all", at most so many of the latest.
        overlap: with "skip", a tick begins nothing while the run before it is unfinished.
        jitter: each run is put off by a part of this, the same for the same tick.

    Raises:
        ConfigError: one of them cannot work.
    """

    catch_up: CatchUp = "latest"
    catch_up_limit: int = 100
    overlap: Overlap = "allow"
    jitter: timedelta = timedelta()

    def __post_init__(self) -> None:
        for what, value, known in (
            ("catch_up", self.catch_up, get_args(CatchUp)),
            ("overlap", self.overlap, get_args(Overlap)),
        ):
            if value not in known:
                raise ConfigError(f"{what} must be one of {', '.join(known)}, not {value!r}")
        limit = self.catch_up_limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_CATCH_UP:
            raise ConfigError(f"catch_up_limit must be from 1 to {MAX_CATCH_UP}, not {limit!r}")
        if not isinstance(self.jitter, timedelta) or self.jitter < timedelta():
            raise ConfigError(f"jitter must be a timedelta, not negative: {self.jitter!r}")
        if self.jitter > LONGEST:
            raise ConfigError(f"jitter must be at most a thousand years, not {self.jitter!r}")


@dataclass(frozen=True, slots=True)
class Ticks:
    """What is to be done about a due schedule.

    Attributes:
        fire: the times to begin runs for, in order; none where they were missed.
        next: when it is due again, after now.
    """

    fire: list[datetime]
    next: datetime


def plan_ticks(
    schedule: CronSchedule | EverySchedule, due: datetime, now: datetime, options: ScheduleOptions
) -> Ticks:
    """Decide about a schedule whose time has come.

    Intervals go on from `due`, not from now, so they do not drift.

    Args:
        schedule: the rule.
        due: the first time that was not dealt with, not after `now`.
        now: the database's time.
        options: what to do about missed times.
    """
    at_most = options.catch_up_limit if options.catch_up == "all" else 1
    if isinstance(schedule, EverySchedule):
        passed = (now - due) // schedule.interval
        first = max(0, passed + 1 - at_most)
        fire = [due + schedule.interval * index for index in range(first, passed + 1)]
        following = due + schedule.interval * (passed + 1)
    else:
        fire = _latest(schedule, due, now, at_most)
        following = schedule.next(now)
    if options.catch_up == "skip" and now - fire[-1] > ON_TIME:
        fire = []
    return Ticks(fire, following)


def _latest(schedule: CronSchedule, due: datetime, now: datetime, at_most: int) -> list[datetime]:
    """Return the last ticks from `due` up to now, in order."""
    ticks: list[datetime] = []
    until = now
    while len(ticks) < at_most and (tick := schedule.latest(until)) > due:
        ticks.append(tick)
        until = tick - timedelta(microseconds=1)
    # A due time that the rule does not name was stored by hand: it counts all the same.
    if len(ticks) < at_most:
        ticks.append(due)
    return ticks[::-1]


def tick_run_id(schedule_id: str, tick: datetime) -> uuid.UUID:
    """Return the id of the run that a schedule begins for a tick: always the same one.

    Laid out as a UUID of version 7 (RFC 9562) whose random bits are a hash, so that it is ordered
    among the ids of other runs.
    """
    digest = hashlib.sha256(f"{schedule_id}\0{_microseconds(tick)}".encode()).digest()
    value = (_microseconds(tick) // 1000 & (1 << 48) - 1) << 80 | int.from_bytes(digest[:10])
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def jitter_of(schedule_id: str, tick: datetime, jitter: timedelta) -> timedelta:
    """Return by how much the run of a tick is put off: from 0 up to `jitter`, always the same."""
    digest = hashlib.sha256(f"jitter\0{schedule_id}\0{_microseconds(tick)}".encode()).digest()
    return jitter * (int.from_bytes(digest[:6]) / (1 << 48))


def _microseconds(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _read_duration(text: str) -> timedelta:
    """Read a duration as Go's time.ParseDuration does: `1h15m30.5s`."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = _DURATION.findall(digits)
    if digits == "0":
        return timedelta()
    if not parts or "".join(parts) != digits:
        raise ConfigError(f"duration {text!r} cannot be read: expected one such as 1h30m or 90s")
    try:
        nanoseconds = sum(_nanoseconds(part) for part in parts)
        return sign * timedelta(microseconds=nanoseconds // 1000)
    except OverflowError as error:
        raise ConfigError(f"duration {text!r} is too long") from error


def _nanoseconds(part: str) -> int:
    match = _PART.fullmatch(part)
    assert match is not None
    whole, _, fraction = match[1].partition(".")
    unit = _NANOSECONDS[match[2]]
    scale = int("1" + "0" * len(fraction))
    return int(whole or "0") * unit + int(fraction or "0") * unit // scale


def _write_duration(duration: timedelta) -> str:
    """Write a positive duration as Go's Duration.String does: `1h15m30.5s`."""
    microseconds = duration // timedelta(microseconds=1)
    if microseconds < 1000:
        return f"{microseconds}µs"
    if microseconds < 10**6:
        return f"{_decimal(microseconds, 3)}ms"
    minutes, rest = divmod(microseconds, 60 * 10**6)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 6)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(number: int, places: int) -> str:
    whole, fraction = divmod(number, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0").rstrip(".")
