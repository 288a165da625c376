"""What a client does with runs, in the caller's transaction: begin, publish, ask, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, overload

from flows import payloads
from flows.client_base import SupportsCursor, naming, route, text
from flows.config import why_no_key
from flows.errors import ConfigError, RunStateError, UnknownRunError
from flows.ids import RunKey
from flows.payloads import Payload
from flows.run_times import times
from flows.schedule_client import ScheduleOperations
from flows.sql import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from flows.registry import Workflow, WorkflowClass
    from flows.run_times import Deadline

__all__ = ["RunOperations", "RunStatus", "SupportsCursor"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

BULK_ROWS = 10_000
"""Rows of one statement of begin_many_tx, which bounds its memory here and in the server."""

BULK_BYTES = 32 * 1024 * 1024
"""Bytes of the inputs in such a statement, though it has one row at least."""


class RunStatus(NamedTuple):
    """The state of a run.

    Attributes:
        status: queued, running, sleeping, waiting_event, completed, failed or cancelled.
        error: of the last failed attempt, or None.
        attempts: how many attempts have failed.
        created_at: when it was begun.
        updated_at: when its state last changed.
        next_wake_at: when a sleeping run wakes, or starts if it was delayed; else None.
    """

    status: str
    error: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    next_wake_at: datetime | None


class RunOperations(ScheduleOperations):
    """What `Client` does in the caller's transaction."""

    @overload
    def begin_tx(
        self,
        tx: SupportsCursor,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        *,
        deadline: Deadline | None = ...,
        delay: timedelta | None = ...,
        start_at: datetime | None = ...,
    ) -> RunKey: ...
    @overload
    def begin_tx(
        self,
        tx: SupportsCursor,
        workflow: Workflow[None, Any] | WorkflowClass[None, Any],
        *,
        deadline: Deadline | None = ...,
        delay: timedelta | None = ...,
        start_at: datetime | None = ...,
    ) -> RunKey: ...
    @overload
    def begin_tx(
        self,
        tx: SupportsCursor,
        workflow: str,
        input: Any = ...,
        *,
        deadline: Deadline | None = ...,
        delay: timedelta | None = ...,
        start_at: datetime | None = ...,
    ) -> RunKey: ...
    def begin_tx(
        self,
        tx: SupportsCursor,
        workflow: Any,
        input: Any = None,  # noqa: A002
        *,
        deadline: Deadline | None = None,
        delay: timedelta | None = None,
        start_at: datetime | None = None,
    ) -> RunKey:
        """Begin a run: it is there, and workers are told, when the caller commits.

        Args:
            tx: the caller's transaction.
            workflow: a workflow's handle, object or name. A handle brings its codec, and the
                input is checked against its annotation.
            input: what the workflow function is given.
            deadline: when the run fails at the latest, with `RunTimeoutError`: an instant, or how
                long from now by the database's clock. None for as long as it takes.
            delay: how long from now by the database's clock it starts; until then it is sleeping.
            start_at: when it starts, instead of a delay.

        Raises:
            EncodeError: the codec cannot keep the input.
            PayloadSizeError: it is larger than `max_payload`.
            DecodeError: the input does not fit the workflow's annotation.
            ConfigError: `workflow` is none, or has no valid name; the deadline is no positive
                timedelta and no aware datetime; the delay is negative, `start_at` has no time
                zone, or both are given.
            SchemaError: the tables are missing.
        """
        name, encode = self._encoder(workflow)
        when = times(deadline, delay, start_at)
        payload = encode(input)
        key = self._new_key(name)
        with self._cursor(tx) as cursor:
            cursor.execute(
                self._query("insert_run"),
                {
                    **route(key),
                    "workflow_name": name,
                    "input_json": text(payload.json),
                    "input_bytes": payload.binary,
                    "codec": payload.codec,
                    "now": self._now() if self._now else None,
                    "channel": self._channel,
                    "payload": key.workflow_name_shard if deadline is None else str(key),
                    **when,
                },
            )
        return key

    def begin_many_tx(
        self,
        tx: SupportsCursor,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any] | str,
        inputs: Iterable[InputT],
        *,
        deadline: Deadline | None = None,
        delay: timedelta | None = None,
        start_at: datetime | None = None,
    ) -> list[RunKey]:
        """Begin a run for each input, in few statements; options as for `begin_tx`.

        Returns:
            The keys, in the order of the inputs. All inputs are encoded before the first
            statement, so a value that cannot be kept begins nothing.

        Raises:
            EncodeError: the codec cannot keep an input.
            PayloadSizeError: one is larger than `max_payload`.
            DecodeError: an input does not fit the workflow's annotation.
            ConfigError: as for `begin_tx`.
            SchemaError: the tables are missing.
        """
        name, encode = self._encoder(workflow)
        when = times(deadline, delay, start_at)
        encoded = [encode(value) for value in inputs]
        keys = [self._new_key(name) for _ in encoded]
        by_shard: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            by_shard.setdefault(key.workflow_name_shard, []).append(index)
        now = self._now() if self._now else None
        with self._cursor(tx) as cursor:
            arrays.register(cursor.adapters)
            encoding = cursor.connection.info.encoding
            for shard, indexes in sorted(by_shard.items()):
                for part in _parts(indexes, encoded):
                    rows = [encoded[index] for index in part]
                    ids = [str(keys[index].run_id) for index in part]
                    values = {"shard": shard, "workflow_name": name, "now": now, **when}
                    cursor.execute(
                        self._query("insert_runs"), values | _arrays(ids, rows, encoding)
                    )
                # One that names a run has the worker look at deadlines.
                self._notify(cursor, shard if deadline is None else str(keys[indexes[0]]))
        return keys

    def publish_event_tx(
        self,
        tx: SupportsCursor,
        run_key: RunKey | str,
        event_name: str,
        payload: Any = None,
    ) -> None:
        """Publish an event of one run and wake the run if it waits for it.

        The last payload published under a name wins; a wait that has returned keeps what it got.

        Raises:
            UnknownRunError: there is no such run.
            EncodeError: the client's codec cannot keep the payload.
            PayloadSizeError: it is larger than the client's `max_payload`.
            ConfigError: the event's name or the key's text cannot be used.
        """
        key = _as_key(run_key)
        fault = why_no_key(event_name)
        if fault is not None:
            raise ConfigError(f"an event's name {fault}")
        encode = naming(f"the payload of event {event_name!r}", self._encode)
        encoded = encode(payload)
        values = {
            **route(key),
            "event_name": event_name,
            "payload_json": text(encoded.json),
            "payload_bytes": encoded.binary,
            "codec": encoded.codec,
        }
        with self._cursor(tx) as cursor:
            if not self._touches(cursor, "upsert_event", values):
                raise UnknownRunError(str(key))
            if self._touches(cursor, "wake_run", values):
                cursor.execute(self._query("satisfy_wait"), values)
            self._notify(cursor, str(key))

    def get_run_status_tx(self, tx: SupportsCursor, run_key: RunKey | str) -> RunStatus:
        """Return the state of a run as `tx` sees it.

        Raises:
            UnknownRunError: there is no such run.
        """
        key = _as_key(run_key)
        row = self._fetch(tx, "read_run_status", key)
        if row is None:
            raise UnknownRunError(str(key))
        status = RunStatus(*row)
        return status if status.status == "sleeping" else status._replace(next_wake_at=None)

    @overload
    def get_run_output_tx(self, tx: SupportsCursor, run_key: RunKey | str) -> Any: ...
    @overload
    def get_run_output_tx(
        self,
        tx: SupportsCursor,
        run_key: RunKey | str,
        type: type[OutputT],
    ) -> OutputT: ...
    @overload
    def get_run_output_tx(self, tx: SupportsCursor, run_key: RunKey | str, type: Any) -> Any: ...
    def get_run_output_tx(
        self,
        tx: SupportsCursor,
        run_key: RunKey | str,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """Return the output of a completed run, decoded to `type`; to plain builtins without.

        Raises:
            UnknownRunError: there is no such run.
            RunStateError: it is not completed; says its status, and its error if it failed.
            DecodeError: the output does not fit the type.
        """
        key = _as_key(run_key)
        row = self._fetch(tx, "read_run_output", key)
        if row is None:
            raise UnknownRunError(str(key))
        status, error, document, binary, codec = row
        if status != "completed":
            headline = error.partition("\n")[0] if error else None
            raise RunStateError(str(key), status, "give an output", headline)
        stored = Payload(None if document is None else document.encode(), binary, codec)
        return payloads.decode(stored, type)

    def cancel_run_tx(self, tx: SupportsCursor, run_key: RunKey | str) -> None:
        """Cancel a run.

        One that is queued, sleeping or waiting for an event is cancelled at once. For one that is
        running the request is recorded, without waiting for its attempt, and its worker is told
        when the caller commits: what the attempt has written since it opened `wf.tx` is undone,
        and the run ends `cancelled`, unless its attempt ends it before the request arrives.

        Raises:
            UnknownRunError: there is no such run.
            RunStateError: it is over.
        """
        key = _as_key(run_key)
        with self._cursor(tx) as cursor:
            if self._touches(cursor, "cancel_run", route(key)):
                return
            if self._touches(cursor, "request_cancel", route(key)):
                self._notify(cursor, str(key))
                return
        raise RunStateError(str(key), self.get_run_status_tx(tx, key).status, "be cancelled")

    def _fetch(self, tx: SupportsCursor, query: str, key: RunKey) -> Sequence[Any] | None:
        with self._cursor(tx) as cursor:
            return cast(
                "Sequence[Any] | None", cursor.execute(self._query(query), route(key)).fetchone()
            )


def _as_key(key: object) -> RunKey:
    """Return a key that can be asked for, whether it came as a pair or as text."""
    if isinstance(key, tuple) and len(key) == 2:
        key = f"{key[0]}:{key[1]}"
    if not isinstance(key, str):
        raise ConfigError(f"{key!r} is not a run key")
    return RunKey.parse(key)


def _parts(indexes: list[int], encoded: list[Payload]) -> Iterator[list[int]]:
    """Yield the rows in parts for a statement each."""
    part: list[int] = []
    size = 0
    for index in indexes:
        size += encoded[index].size
        if part and (size > BULK_BYTES or len(part) == BULK_ROWS):
            yield part
            part, size = [], encoded[index].size
        part.append(index)
    if part:
        yield part


def _arrays(run_ids: list[str], rows: list[Payload], encoding: str) -> dict[str, Any]:
    documents = [row.json for row in rows]
    if encoding != "utf-8":
        # Arrays go out as they are, so in the encoding of the caller's connection.
        documents = [document and document.decode().encode(encoding) for document in documents]
    return {
        "run_ids": arrays.UuidArray(run_ids),
        "input_json": arrays.JsonbArray(documents),
        "input_bytes": arrays.ByteaArray([row.binary for row in rows]),
        "codec": rows[0].codec,
    }
