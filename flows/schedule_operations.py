"""What a client does with schedules: statements out, rows in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypedDict

from flows.config import SCHEDULE_REFRESH, why_no_key
from flows.errors import ConfigError, UnknownScheduleError
from flows.operations import Operation, Operations, Statement, name_of, route, text
from flows.run_options import row_values
from flows.schedules import (
    CatchUp,
    Overlap,
    Schedule,
    ScheduleOptions,
    parse_schedule,
    plan_ticks,
    timezone_of,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from typing import Unpack

    from flows.ids import RunKey

__all__ = ["ScheduleChoices", "ScheduleOperations", "TickChoices"]


class TickChoices(TypedDict, total=False):
    """What may be said about the times of a schedule.

    Attributes:
        catch_up: of ticks missed in a downtime, begin none ("skip"), the "latest" (the default),
            or "all".
        catch_up_limit: with "all", at most so many of the latest, 100 by default.
        overlap: with "skip", a tick begins nothing while the run before it is unfinished.
        jitter: each run is put off by a part of this, the same for the same tick.
    """

    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap
    jitter: timedelta


class ScheduleChoices(TickChoices, total=False):
    """What may be said about a schedule.

    Attributes:
        run_now: begin a run at once, besides.
    """

    run_now: bool


class ScheduleOperations(Operations):
    """Operations on schedules. What they take and raise is said where clients offer them."""

    def schedule(
        self,
        workflow: Any,
        input: Any,  # noqa: A002
        schedule_id: str | None,
        schedule: Schedule,
        *,
        run_now: bool = False,
        **choices: Unpack[TickChoices],
    ) -> Operation[RunKey | None]:
        """Create a schedule, or replace the one of that id."""
        name = name_of(workflow)
        payload = self._encode_input(workflow, input)
        options = ScheduleOptions(**choices)
        schedule_id = _check_id(name if schedule_id is None else schedule_id)
        key = self._new_key(name) if run_now else None
        row = yield from self._row("read_time", {"now": self._time()})
        assert row is not None
        now: datetime = row[0]
        rule = _rule(schedule, now)
        run = {
            "workflow_name": name,
            "input_json": text(payload.json),
            "input_bytes": payload.binary,
            "codec": payload.codec,
            "now": now,
        }
        if key is not None:
            values = run | route(key) | row_values()
            values |= {"channel": self._settings.channel, "payload": key.workflow_name_shard}
            values |= {"quiet_key": None, "is_alone": False}
            yield Statement("insert_run", values, is_read=False)
        columns = {"schedule_id": schedule_id, **run, **rule, **asdict(options), **_last(key, now)}
        yield Statement("upsert_schedule", columns, is_read=False)
        yield from self._notify(SCHEDULE_REFRESH)
        return key

    def pause_schedule(self, schedule_id: str) -> Operation[None]:
        """Begin no more runs for a schedule."""
        values = {"error_text": None, "now": self._time()}
        return self._change("disable_schedule", schedule_id, values)

    def resume_schedule(self, schedule_id: str) -> Operation[None]:
        """Fire a paused schedule again, from its next time on."""
        values: dict[str, Any] = {"schedule_id": _check_id(schedule_id), "now": self._time()}
        row = yield from self._row("read_schedule", values)
        if row is None:
            raise UnknownScheduleError(schedule_id)
        expression, timezone, enabled, due, now = row
        if enabled:
            return
        schedule = parse_schedule(expression, timezone)
        if due <= now:
            due = plan_ticks(schedule, due, now, ScheduleOptions()).next
        yield Statement("enable_schedule", values | {"next_run_at": due}, is_read=False)
        yield from self._notify(SCHEDULE_REFRESH)

    def delete_schedule(self, schedule_id: str) -> Operation[None]:
        """Remove a schedule; runs in progress go on."""
        return self._change("delete_schedule", schedule_id, {})

    def _change(self, name: str, schedule_id: str, values: dict[str, Any]) -> Operation[None]:
        values = {"schedule_id": _check_id(schedule_id), **values}
        if (yield from self._row(name, values)) is None:
            raise UnknownScheduleError(schedule_id)
        yield from self._notify(SCHEDULE_REFRESH)


def _check_id(schedule_id: str) -> str:
    fault = why_no_key(schedule_id)
    if fault is not None:
        raise ConfigError(f"a schedule's id {fault}")
    return schedule_id


def _last(key: RunKey | None, now: datetime) -> dict[str, Any]:
    """Return the columns of the last run, which `run_now` has begun or nobody."""
    if key is None:
        return {"last_run_at": None, "last_shard": None, "last_run_id": None}
    shard, run_id = key
    return {"last_run_at": now, "last_shard": shard, "last_run_id": run_id}


def _rule(schedule: Schedule, now: datetime) -> dict[str, Any]:
    """Return the columns of a rule, once it is sure that they say what the schedule does."""
    if not isinstance(schedule, Schedule):
        raise ConfigError(
            f"{schedule!r} is no schedule: expected every(timedelta), parse_cron(text),"
            " or an object with next()"
        )
    try:
        first = schedule.next(now)
        stored = parse_schedule(str(schedule), timezone_of(schedule))
        if stored.next(now) != first:
            raise ConfigError(
                f"schedule {str(schedule)!r} cannot be stored: read back, its text gives"
                f" {stored.next(now)} where the schedule gave {first}"
            )
    except OverflowError as error:
        raise ConfigError(f"schedule {str(schedule)!r} is never due: {error}") from error
    return {"cron_expr": str(schedule), "timezone": timezone_of(schedule), "next_run_at": first}
