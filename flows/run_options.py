"""What may be said about a run when it is begun, as the parameters of the statements."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, TypedDict

from flows import tracing
from flows.clock import LONGEST, seconds
from flows.config import why_no_key
from flows.errors import ConfigError

__all__ = ["BeginManyOptions", "BeginOptions", "Deadline", "check_tag", "row_values"]

Deadline = timedelta | datetime
"""An instant, or how long from now by the database's clock."""

MAX_TAGS = 32
MAX_TAG_BYTES = 200
MAX_PRIORITY = 9
"""A claim looks once for each, so there are few."""


class BeginManyOptions(TypedDict, total=False):
    """What may be said about runs that are begun together.

    Attributes:
        deadline: when the run fails at the latest, with `RunTimeoutError`: an instant, or how long
            from now by the database's clock. None for as long as it takes.
        delay: how long from now by the database's clock it starts; until then it is sleeping.
        start_at: when it starts, instead of a delay.
        tags: up to 32 texts of up to 200 bytes that runs are found by.
        priority: from 0, which is the default, to 9. Of the due runs of a shard those with a higher
            one are claimed first.
    """

    deadline: Deadline | None
    delay: timedelta | None
    start_at: datetime | None
    tags: Collection[str]
    priority: int


class BeginOptions(BeginManyOptions, total=False):
    """What may be said about a run that is begun.

    Attributes:
        idempotency_key: of runs of one workflow with the same key there is one: whoever begins it
            again gets the key of the run that is there, whatever its input and state.
    """

    idempotency_key: str | None


def row_values(
    *,
    deadline: Deadline | None = None,
    delay: timedelta | None = None,
    start_at: datetime | None = None,
    tags: Collection[str] = (),
    priority: int = 0,
) -> dict[str, Any]:
    """Return the parameters that say what the options do, and in which trace the run is begun.

    Raises:
        ConfigError: one of them cannot be kept, or both `delay` and `start_at` are given.
    """
    if delay is not None and start_at is not None:
        raise ConfigError("a run starts after a delay or at an instant: give one of them")
    if start_at is not None and not _is_instant(start_at):
        raise ConfigError(f"start_at is a datetime with a time zone, not {start_at!r}")
    return {
        "start_at": start_at,
        "delay_s": None if delay is None else _delay_s(delay),
        **_deadline(deadline),
        "tags": _tags(tags),
        "priority": _priority(priority),
        "trace_context": tracing.read_current(),
    }


def check_tag(tag: object) -> str:
    """Return a tag.

    Raises:
        ConfigError: it is none.
    """
    fault = why_no_key(tag)
    if fault is not None:
        raise ConfigError(f"a tag {fault}")
    assert isinstance(tag, str)
    if len(tag.encode()) > MAX_TAG_BYTES:
        raise ConfigError(f"a tag has at most {MAX_TAG_BYTES} bytes, unlike {tag[:40]!r}…")
    return tag


def _tags(tags: object) -> list[str] | None:
    # A text is a collection of texts, too.
    if isinstance(tags, str) or not isinstance(tags, Collection):
        raise ConfigError(f"tags are a collection of texts, not {tags!r}")
    if not tags:
        return None
    chosen = sorted({check_tag(tag) for tag in tags})
    if len(chosen) > MAX_TAGS:
        raise ConfigError(f"a run has at most {MAX_TAGS} tags, not {len(chosen)}")
    return chosen


def _priority(priority: object) -> int:
    # True is an integer, too.
    if type(priority) is not int or not 0 <= priority <= MAX_PRIORITY:
        raise ConfigError(f"a priority is an integer from 0 to {MAX_PRIORITY}, not {priority!r}")
    return priority


def _is_instant(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _delay_s(delay: object) -> float | None:
    if isinstance(delay, timedelta) and timedelta() <= delay <= LONGEST:
        return seconds(delay) or None
    raise ConfigError(f"a delay is a timedelta of 0 s to a thousand years, not {delay!r}")


def _deadline(deadline: object) -> dict[str, Any]:
    if isinstance(deadline, timedelta) and timedelta() < deadline <= LONGEST:
        return {"deadline": None, "deadline_in_s": seconds(deadline)}
    if deadline is None or _is_instant(deadline):
        return {"deadline": deadline, "deadline_in_s": None}
    raise ConfigError(
        "a deadline is a positive timedelta of at most a thousand years, or a datetime with a"
        f" time zone, not {deadline!r}"
    )
