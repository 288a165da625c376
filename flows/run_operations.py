"""What a client does with runs: begin, publish, ask, cancel; statements out, rows in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flows import payloads, tracing
from flows.awaited import ASKING
from flows.config import why_no_key
from flows.errors import ConfigError, PayloadError, RunStateError, UnknownRunError
from flows.ids import RunID, RunKey
from flows.operations import Operation, Operations, Statement, name_of, route, text
from flows.payloads import Payload
from flows.run_options import BeginManyOptions, row_values
from flows.sql import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from typing import Unpack

__all__ = ["OVER", "RunOperations", "RunStatus", "as_key"]

OVER = frozenset({"completed", "failed", "cancelled"})

BULK_ROWS = 10_000
"""Rows of one statement of begin_many, which bounds its memory here and in the server."""

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


class RunOperations(Operations):
    """Operations on runs. What they take, return and raise is said where clients offer them."""

    def begin(
        self,
        workflow: Any,
        input: Any,  # noqa: A002
        *,
        idempotency_key: str | None = None,
        **options: Unpack[BeginManyOptions],
    ) -> Operation[RunKey]:
        """Begin a run, or find the one that was begun with the same idempotency key."""
        name = name_of(workflow)
        chosen = row_values(**options) if options else None
        if idempotency_key is not None and (fault := why_no_key(idempotency_key)) is not None:
            raise ConfigError(f"an idempotency key {fault}")
        payload = self._encode_input(workflow, input)
        # The same key leads to the same shard, within which there is one such run.
        key = self._new_key(name, idempotency_key)
        now = self._time()
        values = {
            **route(key),
            "workflow_name": name,
            "input_json": text(payload.json),
            "input_bytes": payload.binary,
            "codec": payload.codec,
            "channel": self._settings.channel,
            "quiet_key": self._quiet_key(name),
            "is_alone": False,
        }
        if idempotency_key is None and now is None and not options:
            values["trace_context"] = tracing.read_current()
            yield Statement("insert_plain_run", values, is_read=False, may_be_alone=True)
            return key
        values |= {"payload": key.workflow_name_shard, "now": now, **(chosen or row_values())}
        if options.get("deadline") is not None:
            # One that names the run has the worker look at deadlines, and is never left out.
            values |= {"payload": str(key), "quiet_key": None}
        if idempotency_key is None:
            yield Statement("insert_run", values, is_read=False, may_be_alone=True)
            return key
        return (yield from self._begin_once(key, values | {"idempotency_key": idempotency_key}))

    def _begin_once(self, key: RunKey, values: dict[str, Any]) -> Operation[RunKey]:
        asked = {name: values[name] for name in ("workflow_name", "idempotency_key")}
        while True:
            # In every shard: it may have been begun when there were more of them, or fewer.
            row = yield from self._row("read_keyed_run", asked)
            if row is not None:
                return RunKey(row[0], RunID(row[1]))
            # Waits for another transaction that begins it, and does nothing if that commits.
            if (yield from self._row("insert_keyed_run", values)) is not None:
                return key

    def begin_many(
        self, workflow: Any, inputs: Iterable[Any], **options: Unpack[BeginManyOptions]
    ) -> Operation[list[RunKey]]:
        """Begin a run for each input, in few statements."""
        name = name_of(workflow)
        chosen = row_values(**options)
        encoded = [self._encode_input(workflow, value) for value in inputs]
        keys = [self._new_key(name) for _ in encoded]
        by_shard: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            by_shard.setdefault(key.workflow_name_shard, []).append(index)
        now = self._time()
        for shard, indexes in sorted(by_shard.items()):
            for part in _parts(indexes, encoded):
                rows = _arrays([keys[index] for index in part], [encoded[index] for index in part])
                values = {"shard": shard, "workflow_name": name, "now": now, **chosen, **rows}
                yield Statement("insert_runs", values, is_read=False, has_arrays=True)
            # One that names a run has the worker look at deadlines.
            is_plain = options.get("deadline") is None
            yield from self._notify(shard if is_plain else str(keys[indexes[0]]))
        return keys

    def publish_event(
        self, run_key: RunKey | str, event_name: str, payload: Any
    ) -> Operation[None]:
        """Publish an event of one run and wake the run if it waits for it."""
        key = as_key(run_key)
        fault = why_no_key(event_name)
        if fault is not None:
            raise ConfigError(f"an event's name {fault}")
        try:
            encoded = self._encode(payload)
        except PayloadError as error:
            error.of = error.of or f"the payload of event {event_name!r}"
            raise
        values = {
            **route(key),
            "event_name": event_name,
            "payload_json": text(encoded.json),
            "payload_bytes": encoded.binary,
            "codec": encoded.codec,
        }
        if (yield from self._row("upsert_event", values)) is None:
            raise UnknownRunError(str(key))
        if (yield from self._row("wake_run", values)) is not None:
            yield Statement("satisfy_wait", values, is_read=False)
        yield from self._notify(str(key))

    def status(self, run_key: RunKey | str) -> Operation[RunStatus]:
        """Return the state of a run."""
        key = as_key(run_key)
        row = yield from self._row("read_run_status", route(key))
        if row is None:
            raise UnknownRunError(str(key))
        status = RunStatus(*row)
        return status if status.status == "sleeping" else status._replace(next_wake_at=None)

    def await_end(self, run_key: RunKey | str) -> Operation[RunStatus]:
        """Return the state of a run; of one that is not over, ask its workers to tell its end."""
        status = yield from self.status(run_key)
        if status.status not in OVER:
            yield from self._notify(f"{ASKING}{as_key(run_key)}")
        return status

    def output(self, run_key: RunKey | str, type: Any) -> Operation[Any]:  # noqa: A002
        """Return the output of a completed run, decoded."""
        key = as_key(run_key)
        row = yield from self._row("read_run_output", route(key))
        if row is None:
            raise UnknownRunError(str(key))
        status, error, document, binary, codec = row
        if status != "completed":
            headline = error.partition("\n")[0] if error else None
            raise RunStateError(str(key), status, "give an output", headline)
        stored = Payload(None if document is None else document.encode(), binary, codec)
        return payloads.decode(stored, type)

    def cancel(self, run_key: RunKey | str) -> Operation[None]:
        """Cancel a run, or ask the worker that executes it to."""
        key = as_key(run_key)
        if (yield from self._row("cancel_run", route(key))) is not None:
            yield from self._tell_end(key)
            return
        if (yield from self._row("request_cancel", route(key))) is not None:
            yield from self._notify(str(key))
            return
        status = yield from self.status(key)
        raise RunStateError(str(key), status.status, "be cancelled")


def as_key(key: object) -> RunKey:
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


def _arrays(keys: list[RunKey], rows: list[Payload]) -> dict[str, Any]:
    return {
        "run_ids": arrays.UuidArray([str(key.run_id) for key in keys]),
        "input_json": arrays.JsonbArray([row.json for row in rows]),
        "input_bytes": arrays.ByteaArray([row.binary for row in rows]),
        "codec": rows[0].codec,
    }
