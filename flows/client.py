"""The client: in transactions of the caller's, or with connections of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from flows.clock import monotonic, seconds
from flows.database import connect, is_pooled, is_silent, notice_loss, parameters
from flows.ends import EndListener
from flows.errors import ConfigError, DatabaseError
from flows.run_operations import OVER, RunStatus, as_key
from flows.schedule_client import ScheduleClient
from flows.schema import check_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta
    from types import TracebackType
    from typing import Unpack

    import psycopg

    from flows.config import DBConfig
    from flows.ids import RunKey
    from flows.registry import Workflow, WorkflowClass
    from flows.run_options import BeginManyOptions, BeginOptions

__all__ = ["Client", "ConnectedClient", "Pauses", "RunStatus", "examine"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

POLL_S = (0.005, 0.25)
"""How often `wait` asks: at first for a run that takes milliseconds, then ever more rarely."""

TOLD_POLL_S = 2.0
"""How rarely, where it is told when the run is over: what it was to be told may be lost."""

CONNECTION_S = 30.0


class Client(ScheduleClient):
    """Begins runs, publishes events, asks after runs, and keeps schedules.

    Every method whose name ends in `_tx` works in the transaction of the `tx` it is given, which is
    never committed or rolled back here and keeps its settings. Its refusals are `FlowsError`s that
    leave the transaction usable. A client holds no connection and may be shared by threads; one
    that does is made by `connect`.
    """

    @staticmethod
    def connect(dsn: str, *, pool_size: int = 4, **options: Any) -> ConnectedClient:
        """Return a client with connections of its own.

        Args:
            dsn: the database; through a pooler, too.
            pool_size: how many connections it has at most. It opens them when it needs them.
            options: those of `Client`.

        Raises:
            ConfigError: the DSN cannot be read, or `pool_size` is less than 1.
            DatabaseError: the database cannot be reached.
            SchemaError: the tables are missing, or of another version.
        """
        return ConnectedClient(dsn, pool_size=pool_size, **options)


class ConnectedClient(Client):
    """A client that owns its connections, and takes part in transactions of yours all the same.

    Each method without `_tx` is a transaction, committed when it returns. Made by `Client.connect`.
    It may be shared by threads. Not by processes: connect after a fork.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4, **options: Any) -> None:
        """Connect; see `Client.connect`."""
        super().__init__(**options)
        if pool_size < 1:
            raise ConfigError(f"pool_size is at least 1, not {pool_size}")
        pooled = examine(dsn, self._config)
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            parameters(dsn, "flows client"),
            kwargs={"prepare_threshold": None} if pooled else {},
            configure=None if pooled else notice_loss,
            min_size=0,
            max_size=pool_size,
            timeout=CONNECTION_S,
            check=_check,
            name="flows client",
            open=True,
        )
        self._ends = EndListener(dsn, self._operations.channel_of_ends)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._pool.close()
        self._ends.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection in a transaction that is committed at the end of the block.

        For rows of your own beside what the methods with `_tx` do; an exception rolls back.

        Raises:
            DatabaseError: no connection can be had.
        """
        with self._connection(autocommit=False) as connection, connection:
            yield connection

    @contextlib.contextmanager
    def _connection(self, *, autocommit: bool = True) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection, by default for statements of which each commits alone."""
        try:
            connection = self._pool.getconn()
        except PoolClosed as error:
            raise DatabaseError("the client is closed") from error
        except PoolTimeout as error:
            raise DatabaseError(f"no connection for the client: {error}") from error
        try:
            if connection.autocommit != autocommit:
                connection.autocommit = autocommit
            yield connection
        finally:
            self._pool.putconn(connection)

    @overload
    def begin(
        self,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    def begin(
        self,
        workflow: Workflow[None, Any] | WorkflowClass[None, Any],
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    def begin(self, workflow: str, input: Any = ..., **options: Unpack[BeginOptions]) -> RunKey: ...
    def begin(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002
        **options: Unpack[BeginOptions],
    ) -> RunKey:
        """Begin a run, as `begin_tx` does, and commit."""
        with self._connection() as tx:
            return self.begin_tx(tx, workflow, input, **options)

    def begin_many(
        self,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any] | str,
        inputs: Iterable[InputT],
        **options: Unpack[BeginManyOptions],
    ) -> list[RunKey]:
        """Begin a run for each input, all or none, as `begin_many_tx` does, and commit."""
        with self.transaction() as tx:
            return self.begin_many_tx(tx, workflow, inputs, **options)

    def publish_event(self, run_key: RunKey | str, event_name: str, payload: Any = None) -> None:
        """Publish an event of one run, as `publish_event_tx` does, and commit."""
        with self.transaction() as tx:
            self.publish_event_tx(tx, run_key, event_name, payload)

    def status(self, run_key: RunKey | str) -> RunStatus:
        """Return the state of a run, as `get_run_status_tx` does."""
        with self._connection() as tx:
            return self.get_run_status_tx(tx, run_key)

    @overload
    def output(self, run_key: RunKey | str) -> Any: ...
    @overload
    def output(self, run_key: RunKey | str, type: type[OutputT]) -> OutputT: ...
    @overload
    def output(self, run_key: RunKey | str, type: Any) -> Any: ...
    def output(self, run_key: RunKey | str, type: Any = Any) -> Any:  # noqa: A002
        """Return the output of a completed run, as `get_run_output_tx` does."""
        with self._connection() as tx:
            return self.get_run_output_tx(tx, run_key, type)

    def cancel(self, run_key: RunKey | str) -> None:
        """Cancel a run, or have the worker that executes it do so, as `cancel_run_tx` does."""
        with self.transaction() as tx:
            self.cancel_run_tx(tx, run_key)

    @overload
    def wait(self, run_key: RunKey | str, *, timeout: timedelta | None = ...) -> Any: ...
    @overload
    def wait(
        self, run_key: RunKey | str, type: type[OutputT], *, timeout: timedelta | None = ...
    ) -> OutputT: ...
    @overload
    def wait(self, run_key: RunKey | str, type: Any, *, timeout: timedelta | None = ...) -> Any: ...
    def wait(
        self,
        run_key: RunKey | str,
        type: Any = Any,  # noqa: A002
        *,
        timeout: timedelta | None = None,
    ) -> Any:
        """Wait until a run is over, and return its output.

        The worker that executes the run is asked to tell when it is over, on one more connection,
        which the client opens for all who wait. In case that is lost, `wait` looks as well: after 5
        ms at first, every two seconds in the end; through a pooler, where nothing can be heard,
        four times a second.

        Args:
            run_key: the run.
            type: what the output is decoded to; plain builtins without.
            timeout: how long to wait at most, None for as long as it takes.

        Raises:
            TimeoutError: it is not over within the time. The run goes on.
            RunStateError: it has failed or was cancelled; says which, and its error.
            UnknownRunError: there is no such run.
            DecodeError: the output does not fit the type.
        """
        if self.status(run_key).status not in OVER:
            pauses = Pauses(run_key, timeout)
            with self._ends.awaiting(str(as_key(run_key))) as ended:
                while (status := self._await_end(run_key).status) not in OVER:
                    ended.wait(pauses.next_s(status, hears=self._ends.hears))
                    ended.clear()
        return self.output(run_key, type)

    def _await_end(self, run_key: RunKey | str) -> RunStatus:
        with self._connection() as tx:
            return self._execute(tx, self._operations.await_end(run_key))


class Pauses:
    """How long whoever waits for a run pauses before asking again, and when they give up."""

    def __init__(self, run_key: RunKey | str, timeout: timedelta | None) -> None:
        self._run_key, self._timeout = run_key, timeout
        self._end_s = None if timeout is None else monotonic() + seconds(timeout)
        self._pause_s = POLL_S[0]

    def next_s(self, status: str, *, hears: bool) -> float:
        """Return the next pause, of a run with that status; `hears` of who is told of its end.

        Raises:
            TimeoutError: the time is over.
        """
        pause_s = self._pause_s
        if self._end_s is not None:
            left_s = self._end_s - monotonic()
            if left_s <= 0:
                raise TimeoutError(f"run {self._run_key} is {status} after {self._timeout}")
            pause_s = min(pause_s, left_s)
        self._pause_s = min(TOLD_POLL_S if hears else POLL_S[1], self._pause_s * 2)
        return pause_s


def _check(connection: psycopg.Connection[Any]) -> None:
    """Raise for one from before a restart of the server, which is replaced and not handed out.

    What a server or a kernel has ended can be read. All others cost no round trip.
    """
    if not is_silent(connection):
        ConnectionPool.check_connection(connection)


def examine(dsn: str, config: DBConfig) -> bool:
    """Check that a client can work with a database, and tell whether a pooler is in between.

    Raises:
        ConfigError: `dsn` cannot be read.
        DatabaseError: the database cannot be reached.
        SchemaError: the tables are missing, or of another version.
    """
    with connect(dsn, "flows client") as connection:
        check_version(connection, config)
        return is_pooled(connection)
