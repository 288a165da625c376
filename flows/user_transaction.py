"""What `wf.tx` is to user code.

The engine commits and rolls back. While psycopg is at work nothing is raised in the thread; in
between, as within a block or between the rows of a stream, user code can be ended like any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Self

import psycopg

from flows.errors import ContextError
from flows.sessions import Traits, traits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flows.guard import Guard
    from flows.transaction import AttemptTransaction

__all__ = ["Transaction"]


class Transaction:
    """What `wf.tx` is to user code: statements in the attempt's transaction.

    The engine commits and rolls back; savepoints are `with wf.tx.transaction():`.
    """

    def __init__(
        self, attempt: AttemptTransaction, guard: Guard, check: Callable[[], None]
    ) -> None:
        self._attempt = attempt
        self._guard = guard
        self._check = check

    def execute(self, query: Any, params: Any = None, **options: Any) -> psycopg.Cursor[Any]:
        """Execute a statement and return its cursor, as `psycopg.Connection.execute` does."""
        return self.cursor().execute(query, params, **options)

    def cursor(self, *args: Any, **options: Any) -> psycopg.Cursor[Any]:
        """Return a client-side cursor on the transaction, as `psycopg.Connection.cursor` does.

        Raises:
            ContextError: a server-side cursor was asked for, which would outlive the transaction;
                `stream` reads large results row by row.
        """
        self._check()
        if args or options.get("name"):
            raise ContextError("wf.tx has no server-side cursors; read with cursor().stream(…)")
        with self._engine_code():
            connection = self._attempt.connection()
            cursor = _AttemptCursor(connection, **_row_factory(connection, options))
            cursor.belong(self, self._attempt.number)
        return cursor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Transaction]:
        """Run a block in a savepoint: an exception undoes the block's writes and no others."""
        self._check()
        with (
            self._engine_code() as code,
            self._attempt.block() as transaction,
            code.user_code(),
        ):
            yield transaction

    def commit(self) -> None:
        """Refuse: the engine commits."""
        raise ContextError("wf.tx is committed by the engine, not by the workflow")

    def rollback(self) -> None:
        """Refuse: the engine rolls back."""
        raise ContextError(
            "wf.tx is rolled back by the engine; raise, or use `with wf.tx.transaction():`"
        )

    def close(self) -> None:
        """Refuse: the connection is the engine's."""
        raise ContextError("wf.tx is closed by the engine, not by the workflow")

    @property
    def autocommit(self) -> bool:
        """False: it is a transaction."""
        return False

    @autocommit.setter
    def autocommit(self, _value: bool) -> None:
        raise ContextError("wf.tx is a transaction; autocommit cannot be set on it")

    @contextlib.contextmanager
    def _statement(self, number: int) -> Iterator[_EngineCode]:
        self._check()
        attempt = self._attempt
        if not attempt.is_open or attempt.number != number:
            raise ContextError("this cursor is of a transaction that has ended; take a new one")
        with self._engine_code() as code, attempt.statement(self._guard):
            attempt.connection()  # in a step, with its savepoint set
            with attempt.watch():
                yield code

    def _engine_code(self) -> _EngineCode:
        return _EngineCode(self._guard, self._attempt)


class _EngineCode:
    """A block of engine code called by user code: psycopg must not be interrupted."""

    __slots__ = ("_attempt", "_guard", "_is_inside")

    def __init__(self, guard: Guard, attempt: AttemptTransaction) -> None:
        self._guard = guard
        self._attempt = attempt
        self._is_inside = False

    def __enter__(self) -> Self:
        self._guard.enter()
        self._is_inside = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if self._is_inside:
            # A generator that is closed must not raise; what closes it is user code itself.
            self._guard.leave(quietly=kind is GeneratorExit)

    @contextlib.contextmanager
    def user_code(self) -> Iterator[None]:
        """Run a block of user code within the engine's."""
        attempt, was_executing = self._attempt, self._attempt.is_executing
        attempt.end_statement()
        self._guard.leave()
        try:
            yield
        finally:
            self._is_inside = self._guard.enter_again()
            attempt.is_executing = was_executing and self._is_inside


class _AttemptCursor(psycopg.Cursor[Any]):
    """A cursor that works only in the attempt and the transaction it was made for."""

    _owner: Transaction
    _number: int

    def belong(self, owner: Transaction, number: int) -> None:
        self._owner = owner
        self._number = number

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        traits = _checked(query)
        with self._owner._statement(self._number):  # noqa: SLF001  the two classes are one piece
            super().execute(query, *args, **options)
            self._owner._attempt.executed(traits, self.statusmessage)  # noqa: SLF001
        return self

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        traits = _checked(query)
        with self._owner._statement(self._number):  # noqa: SLF001
            super().executemany(query, *args, **options)
            self._owner._attempt.executed(traits, self.statusmessage)  # noqa: SLF001

    def stream(self, query: Any, *args: Any, **options: Any) -> Iterator[Any]:
        rows = self._stream(_checked(query), super().stream(query, *args, **options))
        return self._owner._attempt.reading.add(rows)  # noqa: SLF001

    def _stream(self, traits: Traits, found: Iterator[Any]) -> Generator[Any, None, None]:
        attempt = self._owner._attempt  # noqa: SLF001
        with (
            self._owner._statement(self._number) as code,  # noqa: SLF001
            attempt.reading.streaming(attempt.connection()),
            _closing(found) as rows,
        ):
            attempt.executed(traits, "SELECT")
            for row in rows:
                with code.user_code():
                    yield row

    @contextlib.contextmanager
    def copy(self, statement: Any, *args: Any, **options: Any) -> Iterator[psycopg.Copy]:
        # Its methods count as user code: one that is interrupted ends the copy with an error.
        traits = _checked(statement)
        attempt = self._owner._attempt  # noqa: SLF001
        with (
            self._owner._statement(self._number) as code,  # noqa: SLF001
            attempt.reading.copying(),
            super().copy(statement, *args, **options) as copy,
        ):
            attempt.executed(traits, "COPY")
            with code.user_code():
                yield copy


def _checked(query: Any) -> Traits:
    """Return what the text of a statement says.

    Raises:
        ContextError: it would end the transaction.
    """
    traits = traits_of(query)
    if traits.ends:
        raise ContextError(
            "wf.tx is committed and rolled back by the engine, not by statements; raise, or use"
            " `with wf.tx.transaction():`"
        )
    return traits


@contextlib.contextmanager
def _closing(rows: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Have psycopg end a stream here, and not where its generator is collected."""
    try:
        yield rows
    finally:
        if isinstance(rows, Generator):
            rows.close()


def _row_factory(connection: psycopg.Connection[Any], options: dict[str, Any]) -> dict[str, Any]:
    factory = options.get("row_factory") or connection.row_factory
    unknown = set(options) - {"row_factory", "binary", "name"}
    if unknown:
        raise TypeError(f"wf.tx.cursor() takes no {', '.join(sorted(unknown))}")
    return {"row_factory": factory}
