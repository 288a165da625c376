"""Replay: execute a run once more, against its memos and without changing anything.

Tells where the code as it is now would leave the path that the run has taken: a step without a
memo, another input, a wait for another event, a memo that nobody asks for any more, another output.
No step's function is called, and `wf.tx` is a transaction that can only read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast
from uuid import UUID

from psycopg import errors as pg

from flows import payloads, sql
from flows.context import Context
from flows.drift import drift_of, event_drift_of
from flows.errors import ContextError, FlowsError, Suspend, UnknownRunError
from flows.failures import describe
from flows.memos import read_memos
from flows.payloads import Payload
from flows.signatures import step_type
from flows.steps import NO_INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from flows.database import Connection
    from flows.guard import Guard
    from flows.ids import RunID, RunKey
    from flows.memos import Memos
    from flows.registry import Workflow
    from flows.retry import RetryPolicy
    from flows.steps import StepRunner

__all__ = ["Divergence", "History", "Replay", "read_history", "replay"]

_OVER = frozenset({"completed", "failed", "cancelled"})


class Divergence(NamedTuple):
    """Where the code leaves the path of the run.

    Attributes:
        what: as in "step trace/v1".
        why: what is different.
    """

    what: str
    why: str


class Replay(NamedTuple):
    """What a replay has shown.

    Attributes:
        end: how far it came.
        divergences: in the order they were met; none if the code still does what the run did.
    """

    end: str
    divergences: list[Divergence]


class History(NamedTuple):
    """A run as it is stored.

    Attributes:
        key: of the run.
        status: its status.
        attempts: how many of its attempts have failed.
        error: of the last failed attempt, None if there is none.
        input: what it was begun with.
        output: of a completed run.
        memos: of its steps, waits and random values.
        failed_steps: errors of steps that have failed, by key.
    """

    key: RunKey
    status: str
    attempts: int
    error: str | None
    input: Payload
    output: Payload
    memos: Memos
    failed_steps: dict[str, str | None]


def read_history(connection: Connection, schema: str, key: RunKey) -> History:
    """Read a run with its memos.

    Raises:
        UnknownRunError: there is no such run.
    """
    row = connection.execute(
        sql.load("read_history", schema),
        {"shard": key.workflow_name_shard, "run_id": key.run_id},
    ).fetchone()
    if row is None:
        raise UnknownRunError(str(key))
    status, attempts, _, error = row[:4]
    failed = json.loads(row[11]) if row[11] else {}
    return History(
        key,
        status,
        attempts,
        error,
        Payload(*row[4:7]),
        Payload(*row[7:10]),
        read_memos(row[10]),
        failed,
    )


def replay(connection: Connection, workflow: Workflow[Any, Any], history: History) -> Replay:
    """Execute the workflow function against the memos of a run; writes nothing.

    Args:
        connection: an autocommit connection, on which statements of the workflow only read.
        workflow: whose code is executed.
        history: what the run has done.
    """
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ ONLY")
        context = _ReplayContext(connection, workflow, history)
        end = _run(workflow, history, context)
    if history.status in _OVER and context.is_at_end:
        context.report_unused()
    return Replay(end, context.divergences)


def _run(workflow: Workflow[Any, Any], history: History, context: _ReplayContext) -> str:
    types = workflow.types
    try:
        if types.takes_input:
            given = payloads.decode(history.input, types.input)
            returned = workflow.function(context, given)
        else:
            returned = workflow.function(context)
    except _Stopped as stop:
        return str(stop)
    except pg.ReadOnlySqlTransaction as error:
        context.diverge("wf.tx", f"a statement outside of steps writes: {error}")
        return "stopped at a statement that writes, which a replay does not execute"
    except Exception as error:  # noqa: BLE001  whatever the workflow raises is what is compared
        return _compare_failure(history, context, describe(error))
    context.is_at_end = True
    return _compare_output(workflow, history, context, returned)


def _compare_failure(history: History, context: _ReplayContext, text: str) -> str:
    context.is_at_end = history.status == "failed"
    now, before = text.partition("\n")[0], (history.error or "").partition("\n")[0]
    if history.status != "failed":
        context.diverge("the run", f"raises {now}, where it was {history.status}")
    elif now != before:
        context.diverge("the run", f"raises {now}, where it failed with {before}")
    return f"raised {now}"


def _compare_output(
    workflow: Workflow[Any, Any], history: History, context: _ReplayContext, returned: Any
) -> str:
    if history.status != "completed":
        context.diverge("the run", f"returns, where it was {history.status}")
        return "returned"
    wanted = workflow.types.output
    try:
        now = workflow.encode(returned)
        before = workflow.encode(payloads.decode(history.output, wanted))
        now = workflow.encode(payloads.decode(now, wanted))
    except FlowsError as error:
        context.diverge("the output", str(error))
        return "returned"
    if now != before:
        context.diverge("the output", "is another one than the run has returned")
    return "returned"


class _Stopped(Suspend):
    """The replay cannot go on."""


class _ReplayContext(Context):
    """A context that answers from memos alone."""

    def __init__(
        self, connection: Connection, workflow: Workflow[Any, Any], history: History
    ) -> None:
        self._connection = connection
        self._replayed = workflow
        self._history = history
        self._memos = history.memos
        self._guard = cast("Guard", _NoGuard())
        self._steps = cast("StepRunner", _ReplaySteps(self, workflow, history))
        self._used: set[tuple[str, str]] = set()
        self.divergences: list[Divergence] = []
        self.is_at_end = False

    def diverge(self, what: str, why: str) -> None:
        """Note where the code leaves the run's path."""
        self.divergences.append(Divergence(what, why))

    def report_unused(self) -> None:
        """Note the memos that the code has not asked for."""
        kinds: dict[str, Iterable[str]] = {
            "step": self._memos.steps,
            "wait": self._memos.waits,
            "random value": [*self._memos.uuids, *self._memos.uint64s],
        }
        for kind, keys in kinds.items():
            for key in sorted(keys):
                if (kind, key) not in self._used:
                    self.diverge(f"{kind} {key}", "has a memo that nothing asks for any more")

    @property
    def run_key(self) -> RunKey:
        return self._history.key

    @property
    def run_id(self) -> RunID:
        return self._history.key.run_id

    @property
    def workflow_name(self) -> str:
        return self._replayed.name

    @property
    def attempt(self) -> int:
        return self._history.attempts + (self._history.status != "failed")

    @property
    def tx(self) -> Any:
        return self._connection

    @property
    def remaining(self) -> timedelta | None:
        return None

    @property
    def is_cancelled(self) -> bool:
        return False

    @property
    def client(self) -> NoReturn:
        raise ContextError("wf.client begins and publishes, which a replay must not")

    def _enter(self, what: str, key: str) -> None:
        """Begin nothing: no step runs here, and nobody interrupts."""

    def _sleep(self, wait_key: str, wake_in_s: float) -> None:
        if wake_in_s > 0 or wait_key in self._history.memos.waits:
            self._wait(wait_key, "sleep")

    def _wait_for_event(self, wait_key: str, event_name: str, value_type: Any) -> Any:
        memo = self._memos.waits.get(wait_key)
        drift = memo and event_drift_of(str(self.run_key), wait_key, memo, event_name)
        if drift:
            self.diverge(
                f"wait {wait_key}", f"was for event {drift.before}, is for {drift.now} now"
            )
        return payloads.decode(self._wait(wait_key, "event"), value_type)

    def random_uuidv7(self, key: str) -> UUID:
        return UUID(self._random(key, self._memos.uuids))

    def random_uint64(self, key: str) -> int:
        return cast("int", self._random(key, self._memos.uint64s))

    def _random(self, key: str, values: dict[str, Any]) -> Any:
        self.use("random value", key)
        if key not in values:
            self.stop(f"random value {key}", "has no memo: it would be drawn now")
        return values[key]

    def _wait(self, wait_key: str, wait_type: str) -> Payload:
        self.use("wait", wait_key)
        memo = self._memos.waits.get(wait_key)
        what = f"wait {wait_key}"
        if memo is None:
            self.stop(what, "has no memo: the run would wait there now")
        if memo.type != wait_type:
            self.stop(what, f"was of type {memo.type} and is of type {wait_type} now")
        if not memo.is_satisfied:
            if self._history.status == "completed":
                self.stop(what, "had not ended when the run completed")
            raise _Stopped(f"came to wait {wait_key}, where the run is")
        return memo.payload

    def use(self, kind: str, key: str) -> None:
        """Note that the code asks for a memo."""
        self._used.add((kind, key))

    def stop(self, what: str, why: str) -> NoReturn:
        """Note where the code leaves the run's path for good."""
        self.diverge(what, why)
        raise _Stopped(f"stopped at {what}")


class _NoGuard:
    """Stands for a guard where nobody interrupts."""

    def leave(self) -> None:
        """End nothing."""


class _ReplaySteps:
    """Answers for steps from their memos."""

    current = None

    def __init__(
        self, context: _ReplayContext, workflow: Workflow[Any, Any], history: History
    ) -> None:
        self._context = context
        self._encode = workflow.encode
        self._history = history

    def run(self, key: str, function: Callable[..., Any], given: Any, _retry: RetryPolicy) -> Any:
        """Return the step's memo."""
        context, memos = self._context, self._history.memos
        context.use("step", key)
        encoded = self._encode(None if given is NO_INPUT else given)
        memo = memos.steps.get(key)
        if memo is None:
            self._stop_at(key)
        drift = drift_of(str(self._history.key), key, memos, encoded)
        if drift is not None:
            digests = f"digest {drift.before}, now {drift.now}"
            context.diverge(f"step {key}", f"is given other input than its memo's ({digests})")
        return payloads.decode(memo, step_type(function))

    def _stop_at(self, key: str) -> NoReturn:
        if key in self._history.failed_steps:
            error = (self._history.failed_steps[key] or "").partition("\n")[0]
            raise _Stopped(f"came to step {key}, which failed and has no memo: {error}")
        self._context.stop(f"step {key}", "has no memo: it would be executed now")
