"""The client for asyncio: in transactions of the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from flows.callers import execute_async
from flows.client_base import ClientBase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from flows.async_connected import AsyncConnectedClient
    from flows.callers import Tx
    from flows.ids import RunKey
    from flows.operations import Operation
    from flows.registry import Workflow, WorkflowClass
    from flows.run_operations import RunStatus
    from flows.run_options import BeginManyOptions, BeginOptions
    from flows.schedule_operations import ScheduleChoices
    from flows.schedules import Schedule

__all__ = ["AsyncClient"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
T = TypeVar("T")


class AsyncClient(ClientBase):
    """What `Client` is, for asyncio.

    Every method takes, returns and raises what that of the same name of `Client` does, and `tx` is
    an asynchronous connection of psycopg, or an `AsyncSession` or `AsyncConnection` of SQLAlchemy
    that uses it. A client holds no connection and may be shared by tasks and event loops; one that
    does is made by `connect`. Workflows themselves are synchronous.
    """

    @staticmethod
    def connect(dsn: str, *, pool_size: int = 4, **options: Any) -> AsyncConnectedClient:
        """Return a client with connections of its own, to be opened by `async with` or `open`.

        Args:
            dsn: the database; through a pooler, too.
            pool_size: how many connections it has at most. It opens them when it needs them.
            options: those of `Client`.

        Raises:
            ConfigError: the DSN cannot be read, or `pool_size` is less than 1.
        """
        from flows.async_connected import AsyncConnectedClient  # noqa: PLC0415  it is one of us

        return AsyncConnectedClient(dsn, pool_size=pool_size, **options)

    @overload
    async def begin_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    async def begin_tx(
        self,
        tx: Tx,
        workflow: Workflow[None, Any] | WorkflowClass[None, Any],
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    async def begin_tx(
        self, tx: Tx, workflow: str, input: Any = ..., **options: Unpack[BeginOptions]
    ) -> RunKey: ...
    async def begin_tx(
        self,
        tx: Tx,
        workflow: Any,
        input: Any = None,  # noqa: A002
        **options: Unpack[BeginOptions],
    ) -> RunKey:
        """Begin a run: it is there, and workers are told, when the caller commits."""
        return await self._execute(tx, self._operations.begin(workflow, input, **options))

    async def begin_many_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any] | str,
        inputs: Iterable[InputT],
        **options: Unpack[BeginManyOptions],
    ) -> list[RunKey]:
        """Begin a run for each input, in few statements."""
        return await self._execute(tx, self._operations.begin_many(workflow, inputs, **options))

    async def publish_event_tx(
        self, tx: Tx, run_key: RunKey | str, event_name: str, payload: Any = None
    ) -> None:
        """Publish an event of one run and wake the run if it waits for it."""
        await self._execute(tx, self._operations.publish_event(run_key, event_name, payload))

    async def get_run_status_tx(self, tx: Tx, run_key: RunKey | str) -> RunStatus:
        """Return the state of a run as `tx` sees it."""
        return await self._execute(tx, self._operations.status(run_key))

    @overload
    async def get_run_output_tx(self, tx: Tx, run_key: RunKey | str) -> Any: ...
    @overload
    async def get_run_output_tx(
        self, tx: Tx, run_key: RunKey | str, type: type[OutputT]
    ) -> OutputT: ...
    @overload
    async def get_run_output_tx(self, tx: Tx, run_key: RunKey | str, type: Any) -> Any: ...
    async def get_run_output_tx(
        self,
        tx: Tx,
        run_key: RunKey | str,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """Return the output of a completed run, decoded to `type`; to plain builtins without."""
        return await self._execute(tx, self._operations.output(run_key, type))

    async def cancel_run_tx(self, tx: Tx, run_key: RunKey | str) -> None:
        """Cancel a run, or have the worker that executes it do so."""
        await self._execute(tx, self._operations.cancel(run_key))

    @overload
    async def schedule_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None: ...
    @overload
    async def schedule_tx(
        self,
        tx: Tx,
        workflow: str,
        input: Any,
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None: ...
    async def schedule_tx(
        self,
        tx: Tx,
        workflow: Any,
        input: Any,  # noqa: A002
        schedule_id: str | None,
        schedule: Schedule,
        **choices: Unpack[ScheduleChoices],
    ) -> RunKey | None:
        """Create a schedule, or replace the one of that id; one that is paused fires again."""
        operation = self._operations.schedule(workflow, input, schedule_id, schedule, **choices)
        return await self._execute(tx, operation)

    async def pause_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Begin no more runs for a schedule; those in progress go on."""
        await self._execute(tx, self._operations.pause_schedule(schedule_id))

    async def resume_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Fire a paused schedule again, from its next time on: what was paused is not missed."""
        await self._execute(tx, self._operations.resume_schedule(schedule_id))

    async def delete_schedule_tx(self, tx: Tx, schedule_id: str) -> None:
        """Remove a schedule; runs in progress go on."""
        await self._execute(tx, self._operations.delete_schedule(schedule_id))

    async def _execute(self, tx: Tx, operation: Operation[T]) -> T:
        return await execute_async(operation, tx, self._config.schema)
