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
    if start_at is not None and not _is_instant(start_at):
        raise ConfigError(f"start_at is a datetime with a time zone, not {start_at!r}")
    return {
        "start_at": start_at,
        "delay_s": None if delay is None else _delay_s(delay),
        **_deadline(deadline),
    }


def _is_instant(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _delay_s(delay: object) -> float | None:
    if isinstance(delay, timedelta) and timedelta() <= delay <= _LONGEST:
        return seconds(delay) or None
    raise ConfigError(f"a delay is a timedelta of 0 s to a thousand years, not {delay!r}")


def _deadline(deadline: object) -> dict[str, Any]:
    if isinstance(deadline, timedelta) and timedelta() < deadline <= _LONGEST:
        return {"deadline": None, "deadline_in_s": seconds(deadline)}
    if deadline is None or _is_instant(deadline):
        return {"deadline": deadline, "deadline_in_s": None}
    raise ConfigError(
        "a deadline is a positive timedelta of at most a thousand years, or a datetime with a"
        f" time zone, not {deadline!r}"
    )
