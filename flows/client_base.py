"""What every client operation stands on: a cursor in the caller's transaction, and encoding."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg.rows import tuple_row

from flows import payloads, sql
from flows.codecs import JSONCodec
from flows.config import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NOTIFY_CHANNEL,
    DBConfig,
    check_identifier,
    check_max_payload,
    check_workflow_name,
)
from flows.errors import ConfigError, PayloadSizeError, SchemaError
from flows.ids import RunID, RunKey, uuid7
from flows.registry import Workflow
from flows.shard import shard_for_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from flows.codecs import Codec
    from flows.payloads import Payload

__all__ = ["ClientBase", "SupportsCursor", "naming", "route", "text"]


class SupportsCursor(Protocol):
    """What a transaction must offer: a psycopg connection does, and so does `wf.tx`."""

    def cursor(self) -> Any:
        """Return a cursor in the transaction."""
        ...


class ClientBase:
    """Settings of a client, and how it asks."""

    def __init__(
        self,
        *,
        codec: Codec | None = None,
        db_config: DBConfig | None = None,
        notify_channel: str | None = None,
        disable_notify: bool = False,
        now: Callable[[], datetime] | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
    ) -> None:
        """Describe a client.

        Args:
            codec: for events and for workflows given by name, `JSONCodec()` by default.
            db_config: where the tables live.
            notify_channel: another channel than `flows_run_wakeup`.
            disable_notify: do not notify workers; they find runs by polling.
            now: tells the time runs are begun at, for tests; by default the database does.
            max_payload: bytes that an event's payload, or the input of a workflow given by name,
                may take, encoded; a handle brings its workflow's own.

        Raises:
            ConfigError: the channel is not a valid name, or `max_payload` out of range.
        """
        channel = check_identifier("notify_channel", notify_channel or DEFAULT_NOTIFY_CHANNEL)
        self._channel = None if disable_notify else channel
        self._codec = codec or JSONCodec()
        self._config = db_config or DBConfig()
        self._now = now
        self._max_payload = check_max_payload("a client", max_payload)

    def _encoder(self, workflow: Any) -> tuple[str, Callable[[Any], Payload]]:
        """Return a workflow's name and how its inputs are encoded."""
        if isinstance(workflow, Workflow):
            types = workflow.types

            def encode(value: Any) -> Payload:
                payload = workflow.encode(value)
                if types.takes_input and types.input is not Any:
                    payloads.decode(payload, types.input)
                return payload

            return workflow.name, naming(f"the input of workflow {workflow.name!r}", encode)
        name = workflow if isinstance(workflow, str) else getattr(workflow, "name", None)
        if name is None:
            raise ConfigError(f"{workflow!r} is no workflow: give its handle, object or name")
        of = f"the input of workflow {check_workflow_name(name)!r}"
        return name, naming(of, self._encode)

    def _encode(self, value: Any) -> Payload:
        return payloads.encode(self._codec, value, self._max_payload)

    def _new_key(self, workflow_name: str) -> RunKey:
        run_id = uuid7()
        shard = shard_for_run(workflow_name, str(run_id), self._config.shard_count)
        return RunKey(shard, RunID(run_id))

    def _notify(self, cursor: Any, payload: str) -> None:
        if self._channel is not None:
            cursor.execute(self._query("notify"), {"channel": self._channel, "payload": payload})

    def _touches(self, cursor: Any, query: str, values: dict[str, Any]) -> bool:
        """Tell whether a statement that returns the rows it wrote has written any."""
        # Not by rowcount, which in the caller's pipeline is not known yet.
        return cursor.execute(self._query(query), values).fetchone() is not None

    def _query(self, name: str) -> bytes:
        return sql.load(name, self._config.schema)

    @contextlib.contextmanager
    def _cursor(self, tx: SupportsCursor) -> Iterator[Any]:
        """Yield a cursor of our own, whatever the caller's connection makes of rows."""
        # Not always its own kind of cursor, which may want other placeholders than ours.
        own = psycopg.Cursor(tx) if isinstance(tx, psycopg.Connection) else tx.cursor()
        with own as cursor:
            cursor.row_factory = tuple_row
            try:
                yield cursor
            except (pg.UndefinedTable, pg.InvalidSchemaName) as error:
                schema = self._config.schema
                raise SchemaError(
                    f"schema {schema!r} has no flows tables; run: flows migrate"
                ) from error


def naming(of: str, encode: Callable[[Any], Payload]) -> Callable[[Any], Payload]:
    """Return `encode`, with errors that say of a value that is too large which it is."""

    def encode_named(value: Any) -> Payload:
        try:
            return encode(value)
        except PayloadSizeError as error:
            error.of = of
            raise

    return encode_named


def route(key: RunKey) -> dict[str, Any]:
    """Return the parameters that lead to a run."""
    return {"shard": key.workflow_name_shard, "run_id": key.run_id}


def text(document: bytes | None) -> str | None:
    """Return a JSON document as the text that every connection takes."""
    return None if document is None else document.decode()
