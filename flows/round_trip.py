"""Statements of the engine in one round trip.

psycopg sends each statement of a pipeline by itself, and gives the interpreter's lock away a dozen
times on the way. Where executors keep the processor busy, each time costs a turn. Here all of them
are sent at once, and their answers are waited for once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Transformer
from psycopg.pq import TransactionStatus

from flows import libpq, sql
from flows.database import is_pooled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGresult

    from flows.libpq import Message, Preparation

__all__ = ["Answered", "Query", "execute"]

_Connection = psycopg.Connection[Any]

Query = tuple[str, "Mapping[str, Any]"]
"""A name in `flows/sql/queries`, and the parameters."""

_UNPREPARED = (
    pg.InvalidSqlStatementName,
    pg.DuplicatePreparedStatement,
    pg.FeatureNotSupported,  # a plan whose result has other columns by now
)
"""Errors that tell that what is prepared is not what we take it for."""


class Answered(Protocol):
    """What a statement was answered: this much of psycopg's cursor."""

    @property
    def rowcount(self) -> int:
        """How many rows it returned or changed."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows."""
        ...


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
    together: Iterable[Query] | None = None,
) -> Sequence[Answered]:
    """Execute queries, of which none depends on the answers to others.

    Through a pooler each travels by itself, and by psycopg: nothing is prepared in its sessions.

    Args:
        connection: an autocommit connection of the engine's, with no transaction open.
        schema: where the tables are.
        statements: names of queries, each with its parameters: texts, numbers, times, bytes, null
            and the arrays of `flows.sql.arrays`. Each commits alone, or all do: count on neither.
        together: others, in a transaction that is committed before them. They may be made when
            they are asked for: libpq sends whatever is more than 64 kB at once, and the server
            executes it while the next ones are made. If one cannot be, none is committed.

    Returns:
        The answers: first those to `together`.

    Raises:
        psycopg.Error: one failed, and those behind it were not executed; no transaction is open.
    """
    if is_pooled(connection):
        return _one_by_one(connection, schema, statements, together)
    sending = _Sending(connection, schema, statements, together)
    try:
        results = sending.attempt()
    except (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement):
        if not sending.is_whole:
            raise
        # The session has forgotten what was prepared, or we have, so nothing of it was done.
        results = sending.attempt()
    return [_Answer(connection, result) for result in results]


class _Sending:
    """What one call of `execute` sends, perhaps twice.

    Attributes:
        is_whole: whether all of it was made, so that it can be sent again.
    """

    def __init__(
        self,
        connection: _Connection,
        schema: str,
        statements: Sequence[Query],
        together: Iterable[Query] | None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._encoding = connection.info.encoding
        self._together = None if together is None else iter(together)
        self._needed = [query for query, _ in statements]
        # Whatever cannot be sent is found out before anything is.
        self._after = [self._message(query, values) for query, values in statements]
        self._made: list[Message] = []
        self.is_whole = together is None

    def attempt(self) -> list[PGresult]:
        """Send it all, and return the answers."""
        connection, schema = self._connection, self._schema
        libpq.prepare(connection, schema, [*self._needed, *libpq.doubtful(connection)])
        try:
            results = libpq.exchange(connection, self._messages())
        except Exception as error:
            if isinstance(error, _UNPREPARED):
                libpq.doubt(connection)
            with contextlib.suppress(psycopg.Error):
                # A connection that cannot roll back is lost, and the server has rolled back. Not by
                # psycopg, which has the session forget what is prepared.
                if connection.info.transaction_status != TransactionStatus.IDLE:
                    libpq.send(connection, b"ROLLBACK")
            raise
        libpq.confirm(connection, schema, self._needed)
        if self._together is not None:
            del results[len(self._made) + 1], results[0]
        return results

    def _messages(self) -> Iterator[Message | Preparation | bytes]:
        if self._together is not None:
            # COMMIT is not left to the end of the pipeline: on Citus that makes no transaction.
            yield b"BEGIN"
            yield from self._made
            yield from self._make(self._together)
            self.is_whole = True
            yield b"COMMIT"
        yield from self._after

    def _make(self, queries: Iterator[Query]) -> Iterator[Message | Preparation]:
        for query, values in queries:
            self._made.append(self._message(query, values))
            self._needed.append(query)
            preparation = libpq.preparation(self._connection, self._schema, query)
            if preparation is not None:
                yield preparation
            yield self._made[-1]

    def _message(self, query: str, values: Mapping[str, Any]) -> Message:
        return libpq.message(query, values, self._schema, self._encoding)


def _one_by_one(
    connection: _Connection,
    schema: str,
    statements: Sequence[Query],
    together: Iterable[Query] | None,
) -> list[Answered]:
    def answered(queries: Iterable[Query]) -> list[Answered]:
        return [connection.execute(sql.load(query, schema), values) for query, values in queries]

    answers: list[Answered] = []
    if together is not None:
        with connection.transaction():
            answers = answered(together)
    return answers + answered(statements)
