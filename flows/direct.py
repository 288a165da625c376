"""What the engine adds to an attempt's transaction, sent by libpq itself.

psycopg gives the interpreter's lock away a dozen times for a statement or a pipeline, and each time
another of twenty executors may take it. So BEGIN and the fence go past its cursors, in one text; so
do outcome, memos and COMMIT, prepared and in one pipeline. What users do on `wf.tx` does not.

They are prepared once a session, under names of their own. psycopg has a session forget all that is
prepared after a ROLLBACK, a DROP or an ALTER, and users may: the next fence finds out.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from psycopg import errors as pg
from psycopg.pq import (
    ConnStatus,
    DiagnosticField,
    Escaping,
    ExecStatus,
    Format,
    PipelineStatus,
)

from flows import sql
from flows.records import OutcomeKind
from flows.sql.arrays import BinaryArray, JsonbArray

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg.pq.abc import PGconn, PGresult

    from flows.records import RunRecord
    from flows.writes import Statement

__all__ = ["begin", "commit", "takes"]

MAX_BYTES = 1024 * 1024
"""Of memos."""

_QUERIES = ("fence_run", "complete_run", "yield_runs", "write_steps", "write_waits", "notify")
_RARE = (OutcomeKind.FAILED, OutcomeKind.CANCELLED)
_PREPARED = {query: f"flows_{query}".encode() for query in _QUERIES}
_FENCE = b"BEGIN;EXECUTE flows_fence_run(%s,'%s',%d)"
_SAVEPOINT = b";SAVEPOINT flows_step"
_OK = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

_sessions: WeakSet[psycopg.Connection[Any]] = WeakSet()
"""Those in which the statements are prepared, as far as is known."""


def begin(
    connection: psycopg.Connection[Any], schema: str, run: RunRecord, *, savepoint: bool
) -> bool:
    """Begin a transaction, lock the run in it, and set the savepoint of a step if asked to.

    Returns:
        False if the claim of the run is stale.

    Raises:
        psycopg.Error: it failed; the transaction may be open.
    """
    shard = Escaping(connection.pgconn).escape_literal(run.shard.encode(connection.info.encoding))
    text = _FENCE % (shard, run.run_id.encode(), run.claim)
    if savepoint:
        text += _SAVEPOINT
    if connection not in _sessions:
        _prepare(connection, schema)
    try:
        results = _execute(connection, text)
    except pg.InvalidSqlStatementName:
        _execute(connection, b"ROLLBACK")
        _prepare(connection, schema)
        results = _execute(connection, text)
    return results[1].ntuples == 1


def takes(record: RunRecord) -> bool:
    """Tell whether all that a record needs is prepared, and is little enough to be sent at once."""
    outcome = record.outcome
    if record.randoms or (outcome is not None and outcome.kind in _RARE):
        return False
    return sum(step.size for step in record.steps.values()) <= MAX_BYTES


def commit(
    connection: psycopg.Connection[Any], schema: str, statements: Iterable[Statement]
) -> None:
    """Execute statements and commit the transaction that `begin` has begun, in one round trip.

    Raises:
        psycopg.errors.InvalidSqlStatementName: the session has forgotten them since `begin`.
        psycopg.Error: it failed; the transaction is open and aborted.
    """
    pgconn, encoding = connection.pgconn, connection.info.encoding
    # Whatever cannot be sent is found out before the pipeline begins.
    sent = [_arguments(statement, schema, encoding) for statement in statements]
    pgconn.enter_pipeline_mode()
    for name, values, formats in sent:
        pgconn.send_query_prepared(name, values, formats)
    pgconn.send_query_params(b"COMMIT", None)
    pgconn.pipeline_sync()
    try:
        _answers(connection)
    except pg.InvalidSqlStatementName:
        _sessions.discard(connection)
        raise
    except psycopg.Error:
        raise
    except BaseException:
        # Ctrl-C, in the thread of process_one(): what was answered nobody knows.
        connection.close()
        raise
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()


def _arguments(
    statement: Statement, schema: str, encoding: str
) -> tuple[bytes, tuple[bytes | None, ...], tuple[Format, ...]]:
    """Return the name of a prepared statement, its parameters, and their formats."""
    _, names = sql.numbered(statement.query, schema)
    parameters = (_parameter(statement.values[name], encoding) for name in names)
    values, formats = zip(*parameters, strict=True)
    return _PREPARED[statement.query], values, formats


def _parameter(value: Any, encoding: str) -> tuple[bytes | None, Format]:
    """Return a parameter as it is sent.

    Raises:
        psycopg.DataError: it is a text with a NUL, behind which libpq would send nothing.
    """
    if isinstance(value, bytes | None):
        return value, Format.BINARY
    if isinstance(value, JsonbArray):
        return value.encoded(encoding), Format.BINARY
    if isinstance(value, BinaryArray):
        return value.data, Format.BINARY
    text = str(value)
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return text.encode(encoding), Format.TEXT


def _prepare(connection: psycopg.Connection[Any], schema: str) -> None:
    for query, name in _PREPARED.items():
        result = connection.pgconn.prepare(name, sql.numbered(query, schema)[0])
        if result.status != ExecStatus.COMMAND_OK:
            error = _error(result, connection.info.encoding)
            # One that is there is ours, and was not forgotten.
            if not isinstance(error, pg.DuplicatePreparedStatement):
                raise error
    _sessions.add(connection)


def _execute(connection: psycopg.Connection[Any], text: bytes) -> list[PGresult]:
    connection.pgconn.send_query(text)
    return _answers(connection)


def _answers(connection: psycopg.Connection[Any]) -> list[PGresult]:
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
