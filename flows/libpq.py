"""Prepared statements of the engine, sent by libpq itself.

They are prepared once a session, under names of their own. psycopg has a session forget all that is
prepared after a ROLLBACK, a DROP or an ALTER: then they are prepared anew.
"""

from __future__ import annotations

import contextlib
import select
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, PipelineStatus

from flows import sql
from flows.sql.arrays import BinaryArray, JsonbArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from psycopg.pq.abc import PGconn, PGresult

__all__ = [
    "Message",
    "Preparation",
    "confirm",
    "doubt",
    "doubtful",
    "exchange",
    "message",
    "preparation",
    "prepare",
    "send",
]

_Connection = psycopg.Connection[Any]

_TEXTS = (str, int, float, datetime, UUID)
"""What PostgreSQL reads as Python writes it."""

_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

_prepared: WeakKeyDictionary[_Connection, dict[str, str | None]] = WeakKeyDictionary()
"""For which schema a query is prepared in a session, None where it may be and may not."""


class Message(NamedTuple):
    """A prepared statement with its parameters, as they are sent."""

    name: bytes
    values: tuple[bytes | None, ...]
    formats: tuple[Format, ...]


class Preparation(NamedTuple):
    """A statement that is to be prepared, under which name."""

    name: bytes
    text: bytes


def _name_of(query: str) -> bytes:
    """Return the name under which a query is prepared."""
    return f"flows_{query}".encode()


def prepare(connection: _Connection, schema: str, queries: Iterable[str]) -> None:
    """Prepare queries in a session, but for those that are, as far as is known.

    Raises:
        psycopg.Error: one cannot be.
    """
    prepared = _prepared.setdefault(connection, {})
    for query in queries:
        if prepared.get(query) == schema:
            continue
        try:
            _prepare(connection, schema, query)
        except pg.DuplicatePreparedStatement:
            # Ours, but it may be what has failed, or for another schema.
            send(connection, b"DEALLOCATE " + _name_of(query))
            _prepare(connection, schema, query)
        prepared[query] = schema


def preparation(connection: _Connection, schema: str, query: str) -> Preparation | None:
    """Return what prepares a query on the way to its first use; None if it is prepared or will be.

    `confirm` it when the answers are there.
    """
    prepared = _prepared.setdefault(connection, {})
    if prepared.get(query, "") in (schema, None):
        return None
    prepared[query] = None
    return Preparation(_name_of(query), sql.numbered(query, schema)[0])


def confirm(connection: _Connection, schema: str, queries: Iterable[str]) -> None:
    """Take for prepared what was executed."""
    _prepared.setdefault(connection, {}).update(dict.fromkeys(queries, schema))


def doubtful(connection: _Connection) -> list[str]:
    """Return the queries that may be prepared in a session or not: `prepare` them."""
    prepared = _prepared.get(connection, {})
    return [query for query, schema in prepared.items() if schema is None]


def _prepare(connection: _Connection, schema: str, query: str) -> None:
    # Not prepare(), which does not hear of Ctrl-C while it waits.
    with _closed_by_interrupts(connection):
        connection.pgconn.send_prepare(_name_of(query), sql.numbered(query, schema)[0])
        _answers_to(connection)


@contextlib.contextmanager
def _closed_by_interrupts(connection: _Connection) -> Iterator[None]:
    """Close a session whose answers are not awaited to the end."""
    try:
        yield
    except psycopg.Error:
        raise
    except BaseException:
        # Ctrl-C, in the thread of process_one(): what was answered nobody knows.
        connection.close()
        raise


def doubt(connection: _Connection) -> None:
    """Take nothing for prepared in a session any more."""
    prepared = _prepared.get(connection, {})
    prepared.update(dict.fromkeys(prepared))


def message(query: str, values: Mapping[str, Any], schema: str, encoding: str) -> Message:
    """Return a query with its parameters, as they are sent.

    Raises:
        psycopg.DataError: one is a text with a NUL, behind which libpq would send nothing.
        psycopg.ProgrammingError: one is of a type that is not sent.
    """
    _, names = sql.numbered(query, schema)
    parameters = [_parameter(values[name], encoding) for name in names]
    sent, formats = zip(*parameters, strict=True)
    return Message(_name_of(query), sent, formats)


def _parameter(value: Any, encoding: str) -> tuple[bytes | None, Format]:
    if isinstance(value, bytes | None):
        return value, Format.BINARY
    if isinstance(value, JsonbArray):
        return value.encoded(encoding), Format.BINARY
    if isinstance(value, BinaryArray):
        return value.data, Format.BINARY
    if isinstance(value, bytearray | memoryview):
        # A codec may return them.
        return bytes(value), Format.BINARY
    if not isinstance(value, _TEXTS):
        raise psycopg.ProgrammingError(f"cannot send a {type(value).__name__}")
    text = str(value)
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return text.encode(encoding), Format.TEXT


def exchange(
    connection: _Connection, messages: Iterable[Message | Preparation | bytes]
) -> list[PGresult]:
    """Send statements in one pipeline, and wait for the answers to all of them.

    Args:
        connection: the session, in which they are prepared or prepared on the way.
        messages: the statements; bytes are the text of one without parameters. Where the iterable
            fails, what came before is sent, and its error raised when that is answered.

    Returns:
        The answers, but to preparations.

    Raises:
        psycopg.Error: one failed; the transaction, if any, is open and aborted.
    """
    pgconn = connection.pgconn
    results: list[PGresult] = []
    try:
        with _closed_by_interrupts(connection):
            pgconn.enter_pipeline_mode()
            preparations, failure = _queue(pgconn, messages)
            try:
                pgconn.pipeline_sync()
                results = _answers_to(connection)
            except psycopg.Error:
                # What is incomplete must not be tried again, whatever the server says of the rest.
                if failure is None:
                    raise
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    if failure is not None:
        raise failure
    return [result for number, result in enumerate(results) if number not in preparations]


def _queue(
    pgconn: PGconn, messages: Iterable[Message | Preparation | bytes]
) -> tuple[set[int], Exception | None]:
    """Queue messages to be sent; return which are preparations, and why there are no more."""
    preparations: set[int] = set()
    try:
        for number, each in enumerate(messages):
            if isinstance(each, Message):
                pgconn.send_query_prepared(*each)
            elif isinstance(each, Preparation):
                pgconn.send_prepare(*each)
                preparations.add(number)
            else:
                pgconn.send_query_params(each, None)
    except Exception as error:  # noqa: BLE001  raised once the session is ready for others
        return preparations, error
    return preparations, None


def send(connection: _Connection, text: bytes) -> list[PGresult]:
    """Send a text of one statement or several, and wait for the answers.

    Raises:
        psycopg.Error: one failed; the transaction, if any, is open and aborted.
    """
    with _closed_by_interrupts(connection):
        connection.pgconn.send_query(text)
        return _answers_to(connection)


def _answers_to(connection: _Connection) -> list[PGresult]:
    """Wait for the answers to what was sent, to the end of the pipeline if it is one.

    Raises:
        psycopg.Error: one of them is an error, or the session is lost.
    """
    pgconn = connection.pgconn
    is_pipeline = pgconn.pipeline_status != PipelineStatus.OFF
    readable = select.poll()
    readable.register(pgconn.socket, select.POLLIN)
    results: list[PGresult] = []
    failed: PGresult | None = None
    may_be_here = _flush(pgconn)
    while True:
        # Asking gives the interpreter's lock away, too: not before anything can have come.
        while not may_be_here or pgconn.is_busy():
            readable.poll()
            pgconn.consume_input()
            may_be_here = True
        result = pgconn.get_result()
        if result is None or result.status == ExecStatus.PIPELINE_SYNC:
            break
        if result.status in _OK:
            results.append(result)
        else:
            failed = failed or result
        if is_pipeline:
            pgconn.get_result()  # None, for which nothing need come
    if failed is not None:
        raise _error(failed, connection.info.encoding)
    return results


def _flush(pgconn: PGconn) -> bool:
    """Send what libpq could not send at once; return whether answers were taken in meanwhile.

    The server may wait for that.
    """
    if not pgconn.flush():
        return False
    ready = select.poll()
    ready.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        if any(event & select.POLLIN for _, event in ready.poll()):
            pgconn.consume_input()
    return True


def _error(result: PGresult, encoding: str) -> psycopg.Error:
    """Return what psycopg would raise: without a SQLSTATE it was not the server that answered."""
    if result.error_field(DiagnosticField.SQLSTATE) is None:
        return psycopg.OperationalError(result.get_error_message(encoding))
    return pg.error_from_result(result, encoding)
