"""Steps: calling a step's function, with its tries, its time and its memo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg

from flows import payloads, run_logging, tracing
from flows.clock import monotonic, seconds
from flows.errors import (
    ContextError,
    PayloadError,
    StepPanicError,
    StepTimeoutError,
    Suspend,
    TerminalError,
)
from flows.failures import describe, stack_of
from flows.payloads import NO_PAYLOAD, Payload
from flows.records import StepRecord
from flows.retry import RetryPolicy, wait_s
from flows.signatures import step_type
from flows.suspension import Interrupted, TimeUp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flows.board import Cell
    from flows.details import Details
    from flows.drift import DriftCheck
    from flows.journal import Journal
    from flows.limits import Limits, StepLimit
    from flows.meter import Meter
    from flows.tracing import TracedSpan

__all__ = ["NO_INPUT", "StepRunner"]


class _NoInput:
    """Stands for a step called without input; None is an input like any other."""


NO_INPUT = _NoInput()


class _Call(msgspec.Struct, frozen=True):
    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    encoded: Payload
    value_type: Any
    retry: RetryPolicy


class StepRunner:
    """Runs the steps of one attempt, or answers from their memos.

    Attributes:
        current: the key of the step whose function is running, None between steps.
    """

    def __init__(
        self,
        encode: Callable[[Any], Payload],
        journal: Journal,
        limits: Limits,
        drift: DriftCheck,
        cell: Cell | None = None,
        meter: Meter | None = None,
        details: Details | None = None,
    ) -> None:
        """Prepare to run the steps of an attempt.

        `cell` is where the present one is shown, `meter` counts the tries after the first, and
        `details` tells of each try.
        """
        self._encode = encode
        self._journal = journal
        self._limits = limits
        self._drift = drift
        self._guard = limits.guard
        self._cell = cell
        self._meter = meter
        self._details = details
        self._trying: _Call | None = None
        self._span: TracedSpan | None = None
        self._digest = b""
        self._place = 0
        self._tries = 0
        self._started_s = 0.0
        self._calls: dict[str, tuple[Any, Payload, Any]] = {}
        self.current: str | None = None

    def run(self, key: str, function: Callable[..., Any], given: Any, retry: RetryPolicy) -> Any:
        """Return the step's memo, or call it; see `Context.execute`."""
        value_type = step_type(function)
        try:
            encoded = self._encode(None if given is NO_INPUT else given)
        except PayloadError as error:
            error.of = f"the input of step {key!r}"
            raise
        memo = self._journal.memos.steps.get(key)
        self._check_same_call(key, function, encoded, has_memo=memo is not None)
        if memo is not None:
            self._journal.places.pass_by("step", key)
            self._drift.compare(key, self._journal.memos, encoded)
            if self._details is not None:
                self._details.replay(key)
            try:
                return payloads.decode(memo, value_type)
            except PayloadError as error:
                error.of = f"the memo of step {key!r}"
                raise
        arguments = () if given is NO_INPUT else (given,)
        return self._execute(_Call(key, function, arguments, encoded, value_type, retry))

    def _execute(self, call: _Call) -> Any:
        self._digest = payloads.digest_of(call.encoded)
        self._place = self._journal.places.take("step", call.key)
        self._tries = 0
        span = self._span = tracing.open_step(call.key, call.function, *run_logging.scope.get()[:3])
        if span is None:
            return self._try_until_done(call)
        with span:
            return self._try_until_done(call)

    def _try_until_done(self, call: _Call) -> Any:
        while True:
            self._tries += 1
            self._started_s = monotonic()
            self._trying = call
            memo = NO_PAYLOAD
            value: Any = None
            failure: Exception | None = None
            try:
                memo, value = self._try(call)
            except Exception as error:  # noqa: BLE001  the step's own, raised again below
                failure = error
            self._trying = None
            failure = self._remember(call, memo, failure)
            if failure is None:
                return value
            is_hopeless = isinstance(failure, TerminalError | PayloadError)
            if self._tries > call.retry.max_retries or is_hopeless:
                raise failure
            if self._meter is not None:
                self._meter.retried_step()
            if self._span is not None:
                self._span.retry(failure)
            self._back_off(call.retry, self._tries - 1, failure)

    def _remember(self, call: _Call, memo: Payload, failure: Exception | None) -> Exception | None:
        """Hand on what a try did; return what it failed with, the commit that goes with it too."""
        record = self._record(call, memo, failure)
        try:
            self._journal.remember_step(record)
        except psycopg.Error as refusal:
            failure = refusal
            record = self._record(call, NO_PAYLOAD, failure)
        if self._details is not None:
            self._details.try_step(record)
        return failure

    def fail(self, reason: Exception | None) -> tuple[StepRecord, Exception] | None:
        """Return what is to be recorded of a step that does not end, and what it fails with.

        For whoever has given up its thread; None if no step was running.

        Args:
            reason: why it had to end, None where its own time was over.
        """
        trying = self._trying
        if trying is None:
            return None
        error = reason or self._timeout(trying)
        if self._span is not None:
            self._span.fail(error)
            self._span.end("failed")
        return self._record(trying, NO_PAYLOAD, error), error

    def _try(self, call: _Call) -> tuple[Payload, Any]:
        transaction = self._journal.transaction
        timeout = call.retry.step_timeout
        limit = None if timeout is None else self._limits.begin_step(timeout)
        self.current = call.key
        if self._cell is not None:
            self._cell.step(call.key, self._limits.nearest_s)
        token = run_logging.in_step(call.key)
        transaction.begin_step()
        try:
            if limit is None:
                returned = self._guard.call(call.function, *call.arguments)
            else:
                returned = self._call_within(limit, call)
            if self._journal.suspension is not None:
                # The step swallowed it; it still holds.
                raise self._journal.suspension  # noqa: TRY301  it unwinds like one of its own
            memo, value = self._keep(call, returned)
            transaction.keep_step()
        except Suspend:
            raise
        except BaseException as error:
            transaction.undo_step()
            self._check_interrupted()
            if isinstance(error, Exception):
                raise
            raise StepPanicError(error, stack_of(error)) from error
        finally:
            self._end_try(limit)
            run_logging.scope.reset(token)
        self._check_interrupted()
        return memo, value

    def _keep(self, call: _Call, returned: Any) -> tuple[Payload, Any]:
        """Encode what a step returned, and decode it as every replay will."""
        try:
            memo = self._encode(returned)
            return memo, payloads.decode(memo, call.value_type)
        except PayloadError as error:
            error.of = f"what step {call.key!r} returned"
            raise

    def _call_within(self, limit: StepLimit, call: _Call) -> Any:
        guard = self._guard
        try:
            returned = guard.call_within(limit.window, call.function, *call.arguments)
        except TimeUp as interruption:
            if guard.reason is not None:
                raise
            raise self._timeout(call) from interruption
        if monotonic() > limit.at_s:
            raise self._timeout(call)
        return returned

    def _end_try(self, limit: StepLimit | None) -> None:
        if limit is not None:
            self._limits.end_step(limit)
        self.current = None
        if self._cell is not None:
            self._cell.step(None)

    def _back_off(self, retry: RetryPolicy, failed: int, failure: Exception) -> None:
        try:
            delay_s = wait_s(retry.backoff, failed)
        except Exception as broken:
            failure.add_note(f"it is not tried again, since its backoff failed: {broken!r}")
            raise failure from broken
        if delay_s > 0.0 and not self._limits.pause(delay_s):
            self._journal.suspend(Interrupted("the worker is stopping"))

    def _record(self, call: _Call, memo: Payload, failure: Exception | None) -> StepRecord:
        ended_s = monotonic()
        return StepRecord(
            call.key,
            failure is None,
            call.encoded,
            memo,
            self._digest,
            None if failure is None else describe(failure),
            self._tries,
            ended_s - self._started_s,
            ended_s,
            self._place,
        )

    def _timeout(self, call: _Call) -> StepTimeoutError:
        timeout = call.retry.step_timeout
        timeout_s = 0.0 if timeout is None else seconds(timeout)
        return StepTimeoutError(call.key, timeout_s, monotonic() - self._started_s)

    def _check_interrupted(self) -> None:
        interruption = self._journal.transaction.interruption
        if interruption is not None:
            self._journal.suspend(Interrupted(str(interruption)))

    def _check_same_call(
        self, key: str, function: Callable[..., Any], encoded: Payload, *, has_memo: bool
    ) -> None:
        identity, captured = _identity(function), _captured(function)
        earlier = self._calls.get(key)
        self._calls[key] = (identity, encoded, captured)
        if earlier is None:
            return
        if earlier[0] is not identity and earlier[0] != identity:
            raise ContextError(f"step key {key!r} was used with another step function")
        if earlier[1] != encoded:
            raise ContextError(f"step key {key!r} was used with other input")
        if has_memo and earlier[2] != captured:
            raise ContextError(
                f"step key {key!r} was used with a function that has captured other values: it"
                " would return the memo of the first; put what differs into the key"
            )


_SCALARS = (int, float, str, bytes, type(None))


def _captured(function: Callable[..., Any]) -> Any:
    """What a function defined in another one has captured of values that can be compared."""
    if isinstance(function, partial):
        given = (*function.args, *function.keywords.values())
        return _comparable(given), _captured(function.func)
    if not isinstance(function, FunctionType):
        return None
    cells = function.__closure__
    if cells is None and function.__defaults__ is None:
        return None
    return _comparable(map(_content, cells or ())), _comparable(function.__defaults__ or ())


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # what it stands for has no value yet


def _comparable(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value if isinstance(value, _SCALARS) else None for value in values)


def _identity(function: Callable[..., Any]) -> Any:
    """What tells one step function from another, equal for a lambda or partial made anew."""
    if isinstance(function, FunctionType):
        return function.__code__
    if isinstance(function, partial):
        return _identity(function.func)
    if isinstance(function, MethodType):
        inner = function.__func__
        return inner.__code__ if isinstance(inner, FunctionType) else inner
    return function
