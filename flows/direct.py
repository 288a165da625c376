"""What the engine adds to an attempt's transaction, sent by libpq itself.

psycopg gives the interpreter's lock away a dozen times for a statement or a pipeline, and each time
another of twenty executors may take it. So BEGIN and the fence go past its cursors, in one text; so
do outcome, memos and COMMIT, prepared and in one pipeline. What users do on `wf.tx` does not.

psycopg has a session forget all that is prepared after a ROLLBACK, a DROP or an ALTER, and users
may: the next fence finds out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors as pg
from psycopg.pq import Escaping

from flows import libpq
from flows.records import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from flows.records import RunRecord
    from flows.writes import Statement

__all__ = ["begin", "commit", "takes"]

MAX_BYTES = 1024 * 1024
"""Of memos."""

_QUERIES = ("fence_run", "complete_run", "yield_runs", "write_steps", "write_waits", "notify")
_RARE = (OutcomeKind.FAILED, OutcomeKind.CANCELLED)
_FENCE = b"BEGIN;EXECUTE flows_fence_run(%s,'%s',%d)"
_SAVEPOINT = b";SAVEPOINT flows_step"


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
    libpq.prepare(connection, schema, _QUERIES)
    try:
        results = libpq.send(connection, text)
    except pg.InvalidSqlStatementName:
        libpq.send(connection, b"ROLLBACK")
        libpq.doubt(connection)
        libpq.prepare(connection, schema, _QUERIES)
        results = libpq.send(connection, text)
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
    encoding = connection.info.encoding
    # Whatever cannot be sent is found out before the pipeline begins.
    sent: list[libpq.Message | bytes] = [
        libpq.message(each.query, each.values, schema, encoding) for each in statements
    ]
    try:
        libpq.exchange(connection, [*sent, b"COMMIT"])
    except pg.InvalidSqlStatementName:
        libpq.doubt(connection)
        raise
