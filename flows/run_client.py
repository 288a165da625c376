"""What a client does with runs, in the caller's transaction: begin, publish, ask, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from flows.callers import execute
from flows.client_base import ClientBase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from flows.callers import Tx
    from flows.ids import RunKey
    from flows.operations import Operation
    from flows.registry import Workflow, WorkflowClass
    from flows.run_operations import RunStatus
    from flows.run_options import BeginManyOptions, BeginOptions

__all__ = ["RunClient"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
T = TypeVar("T")


class RunClient(ClientBase):
    """What `Client` does with runs in the caller's transaction."""

    @overload
    def begin_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any],
        input: InputT,
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    def begin_tx(
        self,
        tx: Tx,
        workflow: Workflow[None, Any] | WorkflowClass[None, Any],
        **options: Unpack[BeginOptions],
    ) -> RunKey: ...
    @overload
    def begin_tx(
        self, tx: Tx, workflow: str, input: Any = ..., **options: Unpack[BeginOptions]
    ) -> RunKey: ...
    def begin_tx(
        self,
        tx: Tx,
        workflow: Any,
        input: Any = None,  # noqa: A002
        **options: Unpack[BeginOptions],
    ) -> RunKey:
        """Begin a run: it is there, and workers are told, when the caller commits.

        Args:
            tx: the caller's transaction.
            workflow: a workflow's handle, object or name. A handle brings its codec, and the
                input is checked against its annotation.
            input: what the workflow function is given.
            options: `deadline`, when the run fails at the latest, with `RunTimeoutError`: an
                instant, or how long from now by the database's clock. `delay`, how long from now it
                starts, or `start_at`, when; until then it is sleeping. `tags`, up to 32 texts that
                runs are found by. `priority`, from 0, the default, to 9: of the due runs of a shard
                those with a higher one are claimed first. `idempotency_key`: of runs of one
                workflow with the same key there is one; whoever begins it again gets the key of the
                run that is there, whatever its input and state, and waits for a transaction that is
                about to begin it.

        Raises:
            EncodeError: the codec cannot keep the input.
            PayloadSizeError: it is larger than `max_payload`.
            DecodeError: the input does not fit the workflow's annotation.
            ConfigError: `workflow` is none, or has no valid name; the deadline is no positive
                timedelta and no aware datetime; the delay is negative, `start_at` has no time
                zone, or both are given; a tag or the idempotency key cannot be kept; the
                priority is no integer from 0 to 9; `tx` is no transaction that can be used.
            SchemaError: the tables are missing.
        """
        return self._execute(tx, self._operations.begin(workflow, input, **options))

    def begin_many_tx(
        self,
        tx: Tx,
        workflow: Workflow[InputT, Any] | WorkflowClass[InputT, Any] | str,
        inputs: Iterable[InputT],
        **options: Unpack[BeginManyOptions],
    ) -> list[RunKey]:
        """Begin a run for each input, in few statements.

        Args:
            tx: the caller's transaction.
            workflow: as for `begin_tx`.
            inputs: all of them are encoded before the first statement, so that a value which
                cannot be kept begins nothing.
            options: those of `begin_tx` but for the idempotency key, for every run.

        Returns:
            The keys, in the order of the inputs.

        Raises:
            EncodeError: the codec cannot keep an input.
            PayloadSizeError: one is larger than `max_payload`.
            DecodeError: an input does not fit the workflow's annotation.
            ConfigError: as for `begin_tx`.
            SchemaError: the tables are missing.
        """
        return self._execute(tx, self._operations.begin_many(workflow, inputs, **options))

    def publish_event_tx(
        self, tx: Tx, run_key: RunKey | str, event_name: str, payload: Any = None
    ) -> None:
        """Publish an event of one run and wake the run if it waits for it.

        The last payload published under a name wins; a wait that has returned keeps what it got.

        Raises:
            UnknownRunError: there is no such run.
            EncodeError: the client's codec cannot keep the payload.
            PayloadSizeError: it is larger than the client's `max_payload`.
            ConfigError: the event's name or the key's text cannot be used.
        """
        self._execute(tx, self._operations.publish_event(run_key, event_name, payload))

    def get_run_status_tx(self, tx: Tx, run_key: RunKey | str) -> RunStatus:
        """Return the state of a run as `tx` sees it.

        Raises:
            UnknownRunError: there is no such run.
        """
        return self._execute(tx, self._operations.status(run_key))

    @overload
    def get_run_output_tx(self, tx: Tx, run_key: RunKey | str) -> Any: ...
    @overload
    def get_run_output_tx(self, tx: Tx, run_key: RunKey | str, type: type[OutputT]) -> OutputT: ...
    @overload
    def get_run_output_tx(self, tx: Tx, run_key: RunKey | str, type: Any) -> Any: ...
    def get_run_output_tx(
        self,
        tx: Tx,
        run_key: RunKey | str,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """Return the output of a completed run, decoded to `type`; to plain builtins without.

        Raises:
            UnknownRunError: there is no such run.
            RunStateError: it is not completed; says its status, and its error if it failed.
            DecodeError: the output does not fit the type.
        """
        return self._execute(tx, self._operations.output(run_key, type))

    def cancel_run_tx(self, tx: Tx, run_key: RunKey | str) -> None:
        """Cancel a run.

        One that is queued, sleeping or waiting for an event is cancelled at once. For one that is
        running the request is recorded, without waiting for its attempt, and its worker is told
        when the caller commits: what the attempt has written since it opened `wf.tx` is undone,
        and the run ends `cancelled`, unless its attempt ends it before the request arrives.

        Raises:
            UnknownRunError: there is no such run.
            RunStateError: it is over.
        """
        self._execute(tx, self._operations.cancel(run_key))

    def _execute(self, tx: Tx, operation: Operation[T]) -> T:
        return execute(operation, tx, self._config.schema)
