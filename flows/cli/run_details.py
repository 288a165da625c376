"""A run as `flows runs show` tells it: its row, its memos and its events, decoded."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from psycopg import IsolationLevel
from psycopg.rows import kwargs_row

from flows import payloads, sql
from flows.cli.plain import plain
from flows.cli.run_order import in_order
from flows.cli.why import MANY_AHEAD, Around, why_not_running
from flows.errors import ConfigError, PayloadError, UnknownRunError
from flows.payloads import DEFAULT_CODEC_NAME, Payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.database import Connection
    from flows.ids import RunKey

__all__ = [
    "CrashRecord",
    "Event",
    "Random",
    "RunDetails",
    "Step",
    "Stored",
    "Wait",
    "Worker",
    "placed",
    "read_run",
    "take_payload",
]

T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """A payload, decoded if it can be.

    Attributes:
        codec: name of the codec that wrote it.
        size: how many bytes it takes, in Postgres's spelling where it is JSON.
        value: what it decodes to, of types that JSON has; None if it cannot be decoded.
        undecodable: why it cannot be decoded, None if it is.
    """

    codec: str
    size: int
    value: Any = None
    undecodable: str | None = None


class Worker(msgspec.Struct, frozen=True):
    """The process that has claimed a run."""

    host: str
    pid: int
    started_at: datetime
    lease_expires_at: datetime
    stopped_at: datetime | None


class Step(msgspec.Struct, frozen=True):
    """A step: `seconds` and `started_at` are of its last try, `attempts` counts its tries.

    Attributes:
        claim: by which claim of the run it was made, as with waits and random values.
        place: where in the run's code, in rising order; None if nobody has counted.
    """

    key: str
    status: str
    attempts: int
    started_at: datetime
    seconds: float
    error: str | None
    input: Stored | None
    output: Stored | None
    claim: int = 0
    place: int | None = None


class Wait(msgspec.Struct, frozen=True):
    """A sleep or a wait for an event: open as long as it has no `satisfied_at`."""

    key: str
    type: str
    event_name: str | None
    started_at: datetime
    wake_at: datetime | None
    satisfied_at: datetime | None
    seconds: float | None
    payload: Stored | None
    claim: int = 0
    place: int | None = None


class Event(msgspec.Struct, frozen=True):
    """An event that was published for the run."""

    name: str
    published_at: datetime
    payload: Stored | None


class Random(msgspec.Struct, frozen=True):
    """A random value: a UUID as text, or a number."""

    key: str
    kind: str
    created_at: datetime
    value: str | int | None
    claim: int = 0
    place: int | None = None


class CrashRecord(msgspec.Struct, frozen=True):
    """A death of the process that executed the run, in one of its steps or between them."""

    at: datetime
    cause: str
    step_key: str | None
    host: str | None
    pid: int | None
    claim: int


class RunDetails(msgspec.Struct, frozen=True):
    """A run. What `flows runs show --json` prints has these names.

    Attributes:
        attempts: how many attempts have failed.
        claims: how often it was claimed by a worker.
        crashes: how often its process died while it ran.
        priority: from 0 to 9; it is claimed before due runs of its shard that have a lower one.
        is_suspect: whether it is to be executed alone, because it may have crashed its process.
        deadline: when it fails at the latest.
        tags: what it is found by.
        idempotency_key: with which it was begun, once only.
        cancel_requested_at: when it was asked to be cancelled while it was running.
        read_at: the database's time when this was read.
        worker: who runs it, None unless it is running.
        why: why it is not being executed, empty if it is or is over.
    """

    run_key: str
    workflow_name: str
    status: str
    attempts: int
    claims: int
    crashes: int
    is_suspect: bool
    error: str | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    next_wake_at: datetime | None
    deadline: datetime | None
    cancel_requested_at: datetime | None
    read_at: datetime
    worker: Worker | None
    input: Stored | None
    output: Stored | None
    tags: list[str] = []
    idempotency_key: str | None = None
    priority: int = 0
    steps: list[Step] = []
    waits: list[Wait] = []
    events: list[Event] = []
    random: list[Random] = []
    crash_history: list[CrashRecord] = []
    why: list[str] = []


def read_run(connection: Connection, schema: str, key: RunKey) -> RunDetails:
    """Read a run with all that belongs to it, as of one moment.

    Raises:
        UnknownRunError: there is no such run.
    """
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    route = {"shard": key.workflow_name_shard, "run_id": key.run_id}

    def rows(query: str, make: Callable[..., T], **values: Any) -> list[T]:
        with connection.cursor(row_factory=kwargs_row(make)) as cursor:
            return cursor.execute(sql.load(query, schema), {**route, **values}).fetchall()

    with connection.transaction():
        found: list[dict[str, Any]] = rows("show_run", dict)
        if not found:
            raise UnknownRunError(str(key))
        run = found[0]
        workers = rows("show_worker", Worker, worker_id=run.pop("worker_id"))
        (live,) = rows("count_live_workers", _count, workflow_name=run["workflow_name"])
        ((ahead, executing),) = rows("show_queue", _queue, limit=MANY_AHEAD)
        details = RunDetails(
            run_key=str(key),
            worker=workers[0] if workers else None,
            input=take_payload(run, "input"),
            output=take_payload(run, "output"),
            steps=in_order(rows("show_steps", _step), attrgetter("started_at"), placed),
            waits=in_order(rows("show_waits", _wait), attrgetter("started_at"), placed),
            events=rows("show_events", _event),
            random=in_order(rows("show_random", _random), attrgetter("created_at"), placed),
            crash_history=rows("show_crashes", CrashRecord),
            **run,
        )
    return msgspec.structs.replace(
        details, why=why_not_running(details, Around(live, ahead, executing))
    )


def _count(count: int) -> int:
    return count


def _queue(ahead: int, executing: int) -> tuple[int, int]:
    return ahead, executing


def _step(**columns: Any) -> Step:
    return Step(
        input=take_payload(columns, "input"), output=take_payload(columns, "output"), **columns
    )


def _wait(**columns: Any) -> Wait:
    return Wait(payload=take_payload(columns, "payload"), **columns)


def _event(**columns: Any) -> Event:
    return Event(payload=take_payload(columns, "payload"), **columns)


def _random(value_text: str | None, value_bigint: int | None, **columns: Any) -> Random:
    if value_bigint is None:
        return Random(value=value_text, **columns)
    # uint64 is stored in a signed column.
    return Random(value=value_bigint & 0xFFFF_FFFF_FFFF_FFFF, **columns)


def placed(made: Step | Wait | Random) -> tuple[int, int] | None:
    """Return claim and place of what was made, None if that was not counted."""
    return None if made.place is None else (made.claim, made.place)


def take_payload(columns: dict[str, Any], name: str) -> Stored | None:
    """Take the three columns of a payload out of a row, and return what is in them."""
    payload = Payload(*(columns.pop(f"{name}_{part}") for part in ("json", "bytes", "codec")))
    data = payload.binary if payload.json is None else payload.json
    if data is None:
        return None
    codec = payload.codec or DEFAULT_CODEC_NAME
    try:
        return Stored(codec, len(data), plain(payloads.decode(payload, Any)))
    except ConfigError:
        return Stored(codec, len(data), undecodable="no codec of that name is registered here")
    except (PayloadError, RecursionError) as error:
        return Stored(codec, len(data), undecodable=str(error))
