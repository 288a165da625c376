"""What a client does with schedules, in the caller's transaction."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flows.client_base import ClientBase, route, text
from flows.config import SCHEDULE_REFRESH, why_no_key
from flows.errors import ConfigError, UnknownScheduleError
from flows.run_times import times
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
    from datetime import datetime

    from flows.client_base import SupportsCursor
    from flows.ids import RunKey
    from flows.registry import Workflow, WorkflowClass

__all__ = ["ScheduleOperations"]

InputT = TypeVar("InputT")


class ScheduleOperations(ClientBase):
    """Creates, pauses, resumes and deletes schedules."""

    @overload
    def schedule_tx(
        self,
        tx: SupportsCursor,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        schedule_id: str | None,
        schedule: Schedule,
        *,
        run_now: bool = ...,
        catch_up: CatchUp = ...,
        catch_up_limit: int = ...,
        overlap: Overlap = ...,
        jitter: timedelta = ...,
    ) -> RunKey | None: ...
    @overload
    def schedule_tx(
        self,
        tx: SupportsCursor,
        workflow: str,
        input: Any,
        schedule_id: str | None,
        schedule: Schedule,
        *,
        run_now: bool = ...,
        catch_up: CatchUp = ...,
        catch_up_limit: int = ...,
        overlap: Overlap = ...,
        jitter: timedelta = ...,
    ) -> RunKey | None: ...
    def schedule_tx(
        self,
        tx: SupportsCursor,
        workflow: Any,
        input: Any,  # noqa: A002
        schedule_id: str | None,
        schedule: Schedule,
        *,
        run_now: bool = False,
        catch_up: CatchUp = "latest",
        catch_up_limit: int = 100,
        overlap: Overlap = "allow",
        jitter: timedelta = timedelta(),
    ) -> RunKey | None:
        """Create a schedule, or replace the one of that id; one that is paused fires again.

        A schedule whose rule and zone stay as they are keeps its next time, also when it is
        replaced at every deploy.

        Args:
            tx: the caller's transaction.
            workflow: a workflow's handle, object or name, as for `begin_tx`.
            input: what each run is given.
            schedule_id: its name; None for the workflow's.
            schedule: when runs begin: `every(timedelta)`, `parse_cron(text, timezone)`, or an
                object with `next` whose `str()` is the text of one of these.
            run_now: begin a run at once, besides.
            catch_up: of ticks missed in a downtime, begin none ("skip"), the "latest", or "all".
            catch_up_limit: with "all", at most so many of the latest.
            overlap: with "skip", a tick begins nothing while the run before it is unfinished.
            jitter: each run is put off by a part of this, the same for the same tick.

        Returns:
            The key of the run of `run_now`, else None.

        Raises:
            ConfigError: an option cannot work, or the schedule's text cannot be read back.
            EncodeError: the codec cannot keep the input.
            PayloadSizeError: it is larger than `max_payload`.
            DecodeError: the input does not fit the workflow's annotation.
            SchemaError: the tables are missing.
        """
        name, encode = self._encoder(workflow)
        payload = encode(input)
        options = ScheduleOptions(catch_up, catch_up_limit, overlap, jitter)
        schedule_id = _check_id(name if schedule_id is None else schedule_id)
        key = self._new_key(name) if run_now else None
        with self._cursor(tx) as cursor:
            values: dict[str, Any] = {"now": self._now() if self._now else None}
            now: datetime = cursor.execute(self._query("read_time"), values).fetchone()[0]
            rule = _rule(schedule, now)
            run = {
                "workflow_name": name,
                "input_json": text(payload.json),
                "input_bytes": payload.binary,
                "codec": payload.codec,
                "now": now,
            }
            if key is not None:
                values = run | route(key) | times()
                values |= {"channel": self._channel, "payload": key.workflow_name_shard}
                cursor.execute(self._query("insert_run"), values)
            row = {"schedule_id": schedule_id, **run, **rule, **asdict(options), **_last(key, now)}
            cursor.execute(self._query("upsert_schedule"), row)
            self._notify(cursor, SCHEDULE_REFRESH)
        return key

    def pause_schedule_tx(self, tx: SupportsCursor, schedule_id: str) -> None:
        """Begin no more runs for a schedule; those in progress go on.

        Raises:
            UnknownScheduleError: there is no such schedule.
        """
        now = self._now() if self._now else None
        values = {"schedule_id": _check_id(schedule_id), "error_text": None, "now": now}
        self._change(tx, "disable_schedule", values)

    def resume_schedule_tx(self, tx: SupportsCursor, schedule_id: str) -> None:
        """Fire a paused schedule again, from its next time on: what was paused is not missed.

        Raises:
            UnknownScheduleError: there is no such schedule.
            ConfigError: its stored rule cannot be read.
        """
        values: dict[str, Any] = {
            "schedule_id": _check_id(schedule_id),
            "now": self._now() if self._now else None,
        }
        with self._cursor(tx) as cursor:
            row = cursor.execute(self._query("read_schedule"), values).fetchone()
            if row is None:
                raise UnknownScheduleError(schedule_id)
            expression, timezone, enabled, due, now = row
            if enabled:
                return
            schedule = parse_schedule(expression, timezone)
            if due <= now:
                due = plan_ticks(schedule, due, now, ScheduleOptions()).next
            cursor.execute(self._query("enable_schedule"), values | {"next_run_at": due})
            self._notify(cursor, SCHEDULE_REFRESH)

    def delete_schedule_tx(self, tx: SupportsCursor, schedule_id: str) -> None:
        """Remove a schedule; runs in progress go on.

        Raises:
            UnknownScheduleError: there is no such schedule.
        """
        self._change(tx, "delete_schedule", {"schedule_id": _check_id(schedule_id)})

    def _change(self, tx: SupportsCursor, query: str, values: dict[str, Any]) -> None:
        with self._cursor(tx) as cursor:
            if not self._touches(cursor, query, values):
                raise UnknownScheduleError(values["schedule_id"])
            self._notify(cursor, SCHEDULE_REFRESH)


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
