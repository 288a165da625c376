"""Statements of the engine in one round trip, sent by libpq itself.

psycopg sends each statement of a pipeline by itself, and gives the interpreter's lock away a dozen
times on the way. Where executors keep the processor busy, each time costs a turn. Here all of them
are sent at once, and their answers are waited for once.

They are prepared once a session, under names of their own. psycopg has a session forget all that is
prepared after a ROLLBACK, a DROP or an ALTER: then they are prepared anew.
"""

from __future__ import annotations

import contextlib
import select
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, PipelineStatus

from flows import sql
from flows.database import is_pooled
from flows.sql.arrays import BinaryArray, JsonbArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

__all__ = [
    "Answered",
    "Message",
    "Query",
    "exchange",
    "execute",
    "forget",
    "message",
    "prepare",
    "send",
]

_Connection = psycopg.Connection[Any]

Query = tuple[str, "Mapping[str, Any]"]
"""A name in `flows/sql/queries`, and the parameters."""

_TEXTS = (str, int, float, datetime, UUID)
"""What PostgreSQL reads as Python writes it."""

_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

_prepared: WeakKeyDictionary[_Connection, dict[str, str]] = WeakKeyDictionary()
"""What is prepared in a session, as far as is known, and for which schema."""


class Answered(Protocol):
    """What a statement was answered: this much of psycopg's cursor."""

    @property
    def rowcount(self) -> int:
        """How many rows it returned or changed."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows."""
        ...


class Message(NamedTuple):
    """A prepared statement with its parameters, as they are sent."""

    name: bytes
    values: tuple[bytes | None, ...]
    formats: tuple[Format, ...]


class _Answer:
    """A result of libpq as an `Answered`."""

    def __init__(self, connection: _Connection, result: PGresult) -> None:
        self._connection = connection
        self._result = result

    @property
    def rowcount(self) -> int:
        return self._result.command_tuples or 0

    def fetchall(self) -> list[tuple[Any, ...]]:
        loading = Transformer.from_context(self._connection)
        loading.set_pgresult(self._result)
        return loading.load_rows(0, self._result.ntuples, tuple)


def execute(
    connection: _Connection,
    schema: str,
    statements: Sequence[Query],
    together: Sequence[Query] = (),
) -> Sequence[Answered]:
    """Execute queries, of which none depends on the answers to others.

    Through a pooler each travels by itself, and by psycopg: nothing is prepared in its sessions.

    Args:
        connection: an autocommit connection of the engine's, with no transaction open.
        schema: where the tables are.
        statements: names of queries, each with its parameters: texts, numbers, times, bytes, null
            and the arrays of `flows.sql.arrays`. Each commits alone, or all do: count on neither.
        together: others, in a transaction that is committed before them.

    Returns:
        The answers: first those to `together`.

    Raises:
        psycopg.Error: one failed, and those behind it were not executed; no transaction is open.
    """
    if is_pooled(connection):
        return _one_by_one(connection, schema, statements, together)
    encoding = connection.info.encoding
    queries = [*together, *statements]
    # Whatever cannot be sent is found out before anything is.
    sent: list[Message | bytes] = [
        message(query, values, schema, encoding) for query, values in queries
    ]
    if together:
        # Not left to the end of the pipeline: on Citus that makes no transaction of them.
        sent.insert(len(together), b"COMMIT")
        sent.insert(0, b"BEGIN")
    try:
        results = _attempt(connection, schema, queries, sent)
    except pg.InvalidSqlStatementName:
        # A session forgets all or nothing, so nothing of it was done.
        results = _attempt(connection, schema, queries, sent)
    if together:
        del results[len(together) + 1], results[0]
    return [_Answer(connection, result) for result in results]


def _one_by_one(
    connection: _Connection, schema: str, statements: Sequence[Query], together: Sequence[Query]
) -> list[Answered]:
    def answered(queries: Sequence[Query]) -> list[Answered]:
        return [connection.execute(sql.load(query, schema), values) for query, values in queries]

    answers: list[Answered] = []
    if together:
        with connection.transaction():
            answers = answered(together)
    return answers + answered(statements)


def _attempt(
    connection: _Connection, schema: str, queries: list[Query], sent: list[Message | bytes]
) -> list[PGresult]:
    prepare(connection, schema, [query for query, _ in queries])
    try:
        return exchange(connection, sent)
    except psycopg.Error:
        forget(connection)
        with contextlib.suppress(psycopg.Error):
            # A connection that cannot roll back is lost, and the server has rolled back.
            connection.rollback()
        raise


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


def forget(connection: _Connection) -> None:
    """Take nothing for prepared in a session any more."""
    _prepared.pop(connection, None)


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


def exchange(connection: _Connection, messages: Iterable[Message | bytes]) -> list[PGresult]:
    """Send statements in one pipeline, and wait for the answers to all of them.

    Args:
        connection: the session, in which they are prepared.
        messages: the statements; bytes are the text of one without parameters.

    Raises:
        psycopg.Error: one failed; the transaction, if any, is open and aborted.
    """
    pgconn = connection.pgconn
    try:
        with _closed_by_interrupts(connection):
            pgconn.enter_pipeline_mode()
            for each in messages:
                if isinstance(each, bytes):
                    pgconn.send_query_params(each, None)
                else:
                    pgconn.send_query_prepared(*each)
            pgconn.pipeline_sync()
            return _answers_to(connection)
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()


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
