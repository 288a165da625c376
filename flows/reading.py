"""Streams and copies on `wf.tx`: while one is open, nothing else can be done on the connection.

psycopg has a lock for that, which the thread that has it would wait for. So whatever else wants the
connection is refused, and a stream that user code has left open is ended with what it was begun in.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from flows.errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["Reading", "Stream"]

_BUSY = "wf.tx is busy with stream() or copy(): end that first, or fetch the rows before you go on"
_ENDED = "this stream has ended with the step or transaction that it was begun in"


class Stream:
    """The rows of a stream, which the engine may end."""

    def __init__(self, rows: Generator[Any, None, None]) -> None:
        self._rows = rows
        self._is_ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._is_ended:
            raise ContextError(_ENDED)
        return next(self._rows)

    def close(self) -> None:
        """Read no further."""
        self._rows.close()

    def end(self) -> None:
        """End it if it has begun: whoever reads further is told."""
        if inspect.getgeneratorstate(self._rows) == inspect.GEN_SUSPENDED:
            self._is_ended = True
            with contextlib.suppress(psycopg.Error):
                # Of a connection that is lost.
                self._rows.close()


class Reading:
    """What reads from the connection of an attempt, or writes to it, beyond one statement.

    Attributes:
        is_on: whether a stream or copy is open.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._streams: WeakSet[Stream] = WeakSet()

    def check(self) -> None:
        """Refuse what would wait for the end of a stream or copy.

        Raises:
            ContextError: one is open.
        """
        if self.is_on:
            raise ContextError(_BUSY)

    def add(self, rows: Generator[Any, None, None]) -> Stream:
        """Return a stream that will be ended with what it is begun in."""
        stream = Stream(rows)
        self._streams.add(stream)
        return stream

    def end(self) -> None:
        """End the streams that user code has left open."""
        for stream in list(self._streams):
            stream.end()

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """Have a copy open."""
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False

    @contextlib.contextmanager
    def streaming(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Have a stream open.

        psycopg cancels the statement of one that is left early, which aborts the transaction: so it
        stands on a savepoint, and is undone.
        """
        connection.execute("SAVEPOINT flows_stream")
        try:
            with self.copying():
                yield
        except GeneratorExit:
            if connection.info.transaction_status is TransactionStatus.INERROR:
                connection.execute("ROLLBACK TO SAVEPOINT flows_stream")
            connection.execute("RELEASE SAVEPOINT flows_stream")
            raise
        connection.execute("RELEASE SAVEPOINT flows_stream")
