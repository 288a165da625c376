"""The client for asyncio that owns its connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from flows.async_client import AsyncClient
from flows.client import CONNECTION_S, Pauses, examine
from flows.database import check_dsn, is_silent, notice_loss_async, parameters
from flows.ends import AsyncEndListener
from flows.errors import ConfigError, DatabaseError
from flows.run_operations import OVER, as_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import timedelta
    from types import TracebackType
    from typing import Unpack

    import psycopg

    from flows.ids import RunKey
    from flows.registry import Workflow, WorkflowClass
    from flows.run_operations import RunStatus
    from flows.run_options import BeginManyOptions, BeginOptions

__all__ = ["AsyncConnectedClient"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class AsyncConnectedClient(AsyncClient):
    """What `ConnectedClient` is, for asyncio. Made by `AsyncClient.connect`.

    It is opened by `async with`, or by `open`, in the event loop in which it is used, and may be
    shared by the tasks of that.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4, **options: Any) -> None:
        """Describe it; see `AsyncClient.connect`."""
        super().__init__(**options)
        if pool_size < 1:
            raise ConfigError(f"pool_size is at least 1, not {pool_size}")
        self._dsn, self._pool_size = check_dsn(dsn), pool_size
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] | None = None
        self._ends = AsyncEndListener(dsn, None)

    async def open(self) -> None:
        """Open it.

        Raises:
            DatabaseError: the database cannot be reached.
            SchemaError: the tables are missing, or of another version.
        """
        pooled = await asyncio.to_thread(examine, self._dsn, self._config)
        self._pool = AsyncConnectionPool(
            parameters(self._dsn, "flows client"),
            kwargs={"prepare_threshold": None} if pooled else {},
            configure=None if pooled else notice_loss_async,
            min_size=0,
            max_size=self._pool_size,
            timeout=CONNECTION_S,
            check=_check,
            name="flows client",
            open=False,
        )
        await self._pool.open()
        channel = None if pooled else self._operations.channel_of_ends
        self._ends = AsyncEndListener(self._dsn, channel)

    async def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        if self._pool is not None:
            await self._pool.close()
        await self._ends.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Yield a connection in a transaction that is committed at the end of the block.

        For rows of your own beside what the methods with `_tx` do; an exception rolls back.

        Raises:
            DatabaseError: no connection can be had.
        """
        async with self._connection(autocommit=False) as connection, connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _connection(
        self, *, autocommit: bool = True
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Yield a connection, by default for statements of which each commits alone."""
        if self._pool is None:
            raise DatabaseError("the client is not open; use async with, or await open()")
        connection = await _take(self._pool)
        try:
            if connection.autocommit != autocommit:
                await connection.set_autocommit(autocommit)
            yield connection
        finally:
            await self._pool.putconn(connection)

    @overload
    async def begin(
        self,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    async def begin(
        self,
        workflow: Workflow[None, Any] | WorkflowClass[None, Any],
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    async def begin(
        self, workflow: str, input: Any = ..., **options: Unpack[BeginOptions]
    ) -> RunKey: ...
    async def begin(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002
        **options: Unpack[BeginOptions],
    ) -> RunKey:
        """Begin a run, as `begin_tx` does, and commit."""
        async with self._connection() as tx:
            return await self.begin_tx(tx, workflow, input, **options)

    async def begin_many(
        self,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any] | str,
        inputs: Iterable[InputT],
        **options: Unpack[BeginManyOptions],
    ) -> list[RunKey]:
        """Begin a run for each input, all or none, as `begin_many_tx` does, and commit."""
        async with self.transaction() as tx:
            return await self.begin_many_tx(tx, workflow, inputs, **options)

    async def publish_event(
        self, run_key: RunKey | str, event_name: str, payload: Any = None
    ) -> None:
        """Publish an event of one run, as `publish_event_tx` does, and commit."""
        async with self.transaction() as tx:
            await self.publish_event_tx(tx, run_key, event_name, payload)

    async def status(self, run_key: RunKey | str) -> RunStatus:
        """Return the state of a run, as `get_run_status_tx` does."""
        async with self._connection() as tx:
            return await self.get_run_status_tx(tx, run_key)

    @overload
    async def output(self, run_key: RunKey | str) -> Any: ...
    @overload
    async def output(self, run_key: RunKey | str, type: type[OutputT]) -> OutputT: ...
    @overload
    async def output(self, run_key: RunKey | str, type: Any) -> Any: ...
    async def output(self, run_key: RunKey | str, type: Any = Any) -> Any:  # noqa: A002
        """Return the output of a completed run, as `get_run_output_tx` does."""
        async with self._connection() as tx:
            return await self.get_run_output_tx(tx, run_key, type)

    async def cancel(self, run_key: RunKey | str) -> None:
        """Cancel a run, or have the worker that executes it do so, as `cancel_run_tx` does."""
        async with self.transaction() as tx:
            await self.cancel_run_tx(tx, run_key)

    @overload
    async def wait(self, run_key: RunKey | str, *, timeout: timedelta | None = ...) -> Any: ...
    @overload
    async def wait(
        self, run_key: RunKey | str, type: type[OutputT], *, timeout: timedelta | None = ...
    ) -> OutputT: ...
    @overload
    async def wait(
        self, run_key: RunKey | str, type: Any, *, timeout: timedelta | None = ...
    ) -> Any: ...
    async def wait(
        self,
        run_key: RunKey | str,
        type: Any = Any,  # noqa: A002
        *,
        timeout: timedelta | None = None,
    ) -> Any:
        """Wait until a run is over, and return its output, as `ConnectedClient.wait` does.

        A task that waits may be cancelled at any time, and the run goes on.
        """
        if (await self.status(run_key)).status not in OVER:
            pauses = Pauses(run_key, timeout)
            with self._ends.awaiting(str(as_key(run_key))) as ended:
                while (status := (await self._await_end(run_key)).status) not in OVER:
                    pause_s = pauses.next_s(status, hears=self._ends.hears)
                    # Not wait_for, which before Python 3.12 may lose a cancellation.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await ended.wait()
                    ended.clear()
        return await self.output(run_key, type)

    async def _await_end(self, run_key: RunKey | str) -> RunStatus:
        async with self._connection() as tx:
            return await self._execute(tx, self._operations.await_end(run_key))


async def _check(connection: psycopg.AsyncConnection[Any]) -> None:
    """Do what `flows.client` does with a connection before it is handed out."""
    if not is_silent(connection):
        await AsyncConnectionPool.check_connection(connection)


async def _take(
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]],
) -> psycopg.AsyncConnection[Any]:
    task = asyncio.current_task()
    assert task is not None
    asked_before = task.cancelling()
    try:
        connection = await pool.getconn()
    except PoolClosed as error:
        raise DatabaseError("the client is closed") from error
    except PoolTimeout as error:
        raise DatabaseError(f"no connection for the client: {error}") from error
    if task.cancelling() > asked_before:
        # The pool of psycopg hands one out in spite of a cancellation that meets its coming.
        await pool.putconn(connection)
        raise asyncio.CancelledError
    return connection
