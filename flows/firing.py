"""Firing: beginning the runs of schedules that are due.

Due rows are claimed with SKIP LOCKED, their runs inserted and their next times written in one
transaction, so however many processes look, one fires each tick. The id of a tick's run is made
from the tick, so even a row that is set back by hand begins no run twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flows import sql
from flows.errors import ConfigError
from flows.schedules import (
    ScheduleOptions,
    Ticks,
    jitter_of,
    parse_schedule,
    plan_ticks,
    tick_run_id,
)
from flows.shard import shard_for_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["Fired", "fire_due", "next_due_s"]

BATCH = 500
"""Schedules of one transaction."""

_OVER = ("completed", "failed", "cancelled")


class Fired(NamedTuple):
    """What one transaction has done.

    Attributes:
        schedules: how many schedules were due.
        runs: how many runs they have begun.
        disabled: schedule id and reason of those that cannot be fired.
    """

    schedules: int
    runs: int
    disabled: list[tuple[str, str]]


class _Due(NamedTuple):
    schedule_id: str
    workflow_name: str
    cron_expr: str
    timezone: str | None
    input_json: bytes | None
    input_bytes: bytes | None
    codec: str | None
    next_run_at: datetime
    catch_up: Any
    catch_up_limit: int | None
    overlap: Any
    jitter: timedelta | None
    last_shard: str | None
    last_run_id: UUID | None
    now: datetime

    def plan(self) -> Ticks:
        given = {
            name: value
            for name in ("catch_up", "catch_up_limit", "overlap", "jitter")
            if (value := getattr(self, name)) is not None
        }
        schedule = parse_schedule(self.cron_expr, self.timezone)
        return plan_ticks(schedule, self.next_run_at, self.now, ScheduleOptions(**given))


def next_due_s(
    connection: Connection,
    config: DBConfig,
    workflow_names: Sequence[str],
    now: datetime | None = None,
) -> float | None:
    """Return in how many seconds a schedule of these workflows is due, None if none ever is."""
    values = {"workflow_names": list(workflow_names), "now": now}
    row = connection.execute(sql.load("read_next_schedule", config.schema), values).fetchone()
    return None if row is None else row[0]


def fire_due(
    connection: Connection,
    config: DBConfig,
    workflow_names: Sequence[str],
    notify_channel: str | None,
    now: datetime | None = None,
) -> Fired:
    """Fire some of the schedules that are due, in one transaction.

    Args:
        connection: an autocommit connection of the engine.
        config: where the tables are.
        workflow_names: schedules of other workflows are left alone.
        notify_channel: where workers are told, None for nowhere.
        now: the time, for tests; the database's by default.
    """
    with connection.transaction():
        return _Batch(connection, config, now).fire(workflow_names, notify_channel)


class _Batch:
    """What one transaction writes, gathered first: each kind goes out at once."""

    def __init__(self, connection: Connection, config: DBConfig, now: datetime | None) -> None:
        self._connection = connection
        self._config = config
        self._now = now
        self._runs: list[dict[str, Any]] = []
        self._advanced: list[dict[str, Any]] = []
        self._disabled: list[dict[str, Any]] = []

    def fire(self, workflow_names: Sequence[str], notify_channel: str | None) -> Fired:
        values = {"workflow_names": list(workflow_names), "now": self._now, "wanted": BATCH}
        rows = self._connection.execute(self._query("claim_schedules"), values).fetchall()
        for row in rows:
            self._plan(_Due(*row))
        with self._connection.cursor() as cursor:
            # Batches of these travel in few round trips.
            cursor.executemany(self._query("insert_tick"), self._runs)
            cursor.executemany(self._query("advance_schedule"), self._advanced)
            cursor.executemany(self._query("disable_schedule"), self._disabled)
            if notify_channel is not None:
                shards = dict.fromkeys(run["shard"] for run in self._runs)
                told = [{"channel": notify_channel, "payload": shard} for shard in shards]
                cursor.executemany(self._query("notify"), told)
        disabled = [(each["schedule_id"], each["error_text"]) for each in self._disabled]
        return Fired(len(rows), len(self._runs), disabled)

    def _plan(self, due: _Due) -> None:
        try:
            ticks = due.plan()
            fire = ticks.fire
            if due.overlap == "skip":
                # Of several, all but one would find the one before it unfinished.
                fire = [] if self._is_unfinished(due) else fire[-1:]
            runs = [self._run(due, tick) for tick in fire]
        except (ConfigError, OverflowError) as error:
            self._disabled.append(
                {"schedule_id": due.schedule_id, "error_text": str(error), "now": self._now}
            )
            return
        self._runs += runs
        self._advanced.append(
            {
                "schedule_id": due.schedule_id,
                "next_run_at": ticks.next,
                "last_run_at": due.now if runs else None,
                "last_shard": runs[-1]["shard"] if runs else due.last_shard,
                "last_run_id": runs[-1]["run_id"] if runs else due.last_run_id,
                "now": due.now,
            }
        )

    def _run(self, due: _Due, tick: datetime) -> dict[str, Any]:
        """Return the run of a tick; an OverflowError where it is put off beyond the calendar."""
        run_id = tick_run_id(due.schedule_id, tick)
        shard = shard_for_run(due.workflow_name, str(run_id), self._config.shard_count)
        begin_at = tick
        if due.jitter:
            begin_at += jitter_of(due.schedule_id, tick, due.jitter)
        is_later = begin_at > due.now
        return {
            "shard": shard,
            "run_id": run_id,
            "workflow_name": due.workflow_name,
            "status": "sleeping" if is_later else "queued",
            "next_wake_at": begin_at if is_later else None,
            "input_json": None if due.input_json is None else due.input_json.decode(),
            "input_bytes": due.input_bytes,
            "codec": due.codec,
            "now": due.now,
        }

    def _is_unfinished(self, due: _Due) -> bool:
        if due.last_run_id is None:
            return False
        key = {"shard": due.last_shard, "run_id": due.last_run_id}
        row = self._connection.execute(self._query("read_run_status"), key).fetchone()
        return row is not None and row[0] not in _OVER

    def _query(self, name: str) -> bytes:
        return sql.load(name, self._config.schema)
