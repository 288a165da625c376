"""When a run may start and by when it must be over, as the parameters of the statements."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flows.clock import seconds
from flows.errors import ConfigError

__all__ = ["Deadline", "times"]

Deadline = timedelta | datetime
"""An instant, or how long from now by the database's clock."""

_LONGEST = timedelta(days=365_250)
"""A thousand years: a sum that PostgreSQL cannot keep would end the caller's transaction."""


def times(
    deadline: Deadline | None = None,
    delay: timedelta | None = None,
    start_at: datetime | None = None,
) -> dict[str, Any]:
    """Return the parameters that say when a run starts, and when it fails, at the latest.

    Raises:
        ConfigError: one of them is no time that can be kept, or both `delay` and `start_at`
            are given.
    """
    if delay is not None and start_at is not None:
        raise ConfigError("a run starts after a delay or at an instant: give one of them")
    return {
        "start_at": None if start_at is None else _instant("start_at", start_at),
        "delay_s": None if delay is None else _delay_s(delay),
        **_deadline(deadline),
    }


def _instant(name: str, value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise ConfigError(f"{name} is a datetime with a time zone, not {value!r}")


def _delay_s(delay: object) -> float | None:
    if isinstance(delay, timedelta) and timedelta() <= delay <= _LONGEST:
        return seconds(delay) or None
    raise ConfigError(f"a delay is a timedelta of a thousand years at most, not {delay!r}")


def _deadline(deadline: object) -> dict[str, Any]:
    if isinstance(deadline, timedelta) and timedelta() < deadline <= _LONGEST:
        return {"deadline": None, "deadline_in_s": seconds(deadline)}
    if isinstance(deadline, datetime) and deadline.tzinfo is not None:
        return {"deadline": deadline, "deadline_in_s": None}
    if deadline is None:
        return {"deadline": None, "deadline_in_s": None}
    raise ConfigError(
        f"a deadline is a positive timedelta or a datetime with a time zone, not {deadline!r}"
    )
