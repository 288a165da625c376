"""The context: replay-safe primitives for workflow code.

At every resume the workflow function runs again from the top. A primitive that has been memoized
answers from its memo; one that has not does its work and remembers it. A step's value is encoded
once and *the decoded form is returned*, so that the first execution and every replay see the same.
"""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import UUID

from flows import payloads
from flows.clock import LONGEST, seconds
from flows.config import why_no_key
from flows.drift import DriftCheck
from flows.errors import ContextError, PayloadError
from flows.ids import RunID, RunKey, uuid7
from flows.payloads import NO_PAYLOAD
from flows.records import Outcome, OutcomeKind, RandomRecord, WaitRecord
from flows.retry import RetryPolicy
from flows.steps import NO_INPUT, StepRunner
from flows.suspension import Interrupted, Yielded
from flows.user_transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from flows.board import Cell
    from flows.claims import ClaimedRun
    from flows.client import Client
    from flows.details import Details
    from flows.engine import Engine
    from flows.journal import Journal
    from flows.limits import Limits
    from flows.memos import WaitMemo
    from flows.payloads import Payload
    from flows.records import StepRecord
    from flows.registry import Workflow

__all__ = ["Context"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


_ONCE = RetryPolicy()


class Context:
    """Replay-safe primitives of one attempt; valid in its thread until the attempt ends.

    Keys name a primitive's memo within the run. They must be the same at every replay, so they
    must not depend on anything that may differ then, and changing what a key stands for wants a
    new key (`"trace/v2"`).
    """

    def __init__(
        self,
        engine: Engine,
        workflow: Workflow[Any, Any],
        run: ClaimedRun,
        journal: Journal,
        limits: Limits,
        cell: Cell | None = None,
        details: Details | None = None,
    ) -> None:
        self._engine = engine
        self._workflow = workflow
        self._run = run
        self._journal = journal
        self._limits = limits
        self._guard = limits.guard
        self._drift = DriftCheck(f"{run.shard}:{run.run_id}", workflow.on_drift, engine.logger)
        self._details = details
        self._steps = StepRunner(
            workflow.encode, journal, limits, self._drift, cell, engine.meter, details
        )
        self._thread_id = threading.get_ident()
        self._is_ended = False

    @property
    def run_key(self) -> RunKey:
        """The key of this run, which clients know it by."""
        return RunKey(self._run.shard, self.run_id)

    @property
    def run_id(self) -> RunID:
        """The id of this run, the same at every replay: fit for an idempotency key."""
        return RunID(UUID(self._run.run_id))

    @property
    def workflow_name(self) -> str:
        """The name of the workflow."""
        return self._workflow.name

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1; failed attempts before it count, resumes do not."""
        return self._run.attempts + 1

    @property
    def tx(self) -> Transaction:
        """The attempt's transaction, for business writes that stand or fall with the memos.

        Opened and fenced at the first statement. Committed by the engine, when the attempt yields
        or ends (also when it fails), or at the end of each step with `commit="step"`.
        """
        self._check_usable()
        return Transaction(self._journal.transaction, self._guard, self._check_usable)

    @property
    def remaining(self) -> timedelta | None:
        """How long the code that asks may go on: until its step's timeout or the run's deadline.

        Zero once that is past, None where neither is set. In a step too, and from any thread.
        """
        return self._limits.remaining

    @property
    def is_cancelled(self) -> bool:
        """Whether this run was asked to be cancelled, as far as the worker knows.

        For code that is not interrupted: a callback of a library, or a thread that a step has
        started. In a step too, and from any thread.
        """
        return self._limits.is_cancelled

    @property
    def client(self) -> Client:
        """A client for the tables and shards this run lives in, to be used with `wf.tx`."""
        return self._engine.client

    @overload
    def execute(
        self, step_key: str, step: Callable[[], OutputT], /, *, retry: RetryPolicy = ...
    ) -> OutputT: ...
    @overload
    def execute(
        self,
        step_key: str,
        step: Callable[[InputT], OutputT],
        /,
        input: InputT,
        retry: RetryPolicy = ...,
    ) -> OutputT: ...
    def execute(
        self,
        step_key: str,
        step: Callable[..., Any],
        /,
        input: Any = NO_INPUT,  # noqa: A002
        retry: RetryPolicy = _ONCE,
    ) -> Any:
        """Run a step once per run and key; afterwards return its memo.

        A process that dies before the memo is committed runs the step again: effects outside the
        database want an idempotency key, such as `run_id` or `random_uuidv7`.

        Args:
            step_key: names the memo, unique in the workflow.
            step: called with `input`, or with nothing where none is given.
            input: the step's argument; stored with the memo, as it is before the call: a step must
                not change it.
            retry: tries, waits and timeout within this attempt of the run.

        Returns:
            The step's value as its memo decodes, by the return annotation of `step`.

        Raises:
            Exception: the step's own, once its retries are spent.
            StepPanicError: it left with something other than an `Exception`.
            StepTimeoutError: its last try took longer than `retry.step_timeout`.
            PayloadError: its input or value cannot be kept, or does not fit the annotation.
            DriftError: with `on_drift="error"`, its memo was made from other input.
            ContextError: called in a step, from another thread, with an empty key, or with a key
                that stands for another call in this attempt.
        """
        if not isinstance(retry, RetryPolicy) or isinstance(input, RetryPolicy):
            raise ContextError(f"step {step_key!r} takes a RetryPolicy as retry=, and nothing else")
        self._enter("step_key", step_key)
        try:
            return self._steps.run(step_key, step, input, retry)
        finally:
            self._guard.leave()

    durable_execute = execute

    def sleep(self, wait_key: str, duration: timedelta) -> None:
        """Sleep durably: yield now, and return in a later attempt once the time has passed.

        The database's clock decides. A duration of zero or less returns at once.

        Args:
            wait_key: names the sleep, unique among the workflow's sleeps and waits.
            duration: how long, from the moment the yield is committed.

        Raises:
            ContextError: as for `execute`; or `duration` is not a timedelta of at most a thousand
                years.
        """
        if not isinstance(duration, timedelta) or duration > LONGEST:
            raise ContextError(
                f"sleep takes a timedelta of at most a thousand years, not {duration!r}"
            )
        self._enter("wait_key", wait_key)
        try:
            self._sleep(wait_key, seconds(duration))
        finally:
            self._guard.leave()

    @overload
    def wait_for_event(self, wait_key: str, event_name: str, /) -> Any: ...
    @overload
    def wait_for_event(
        self,
        wait_key: str,
        event_name: str,
        /,
        type: type[OutputT],
    ) -> OutputT: ...
    @overload
    def wait_for_event(self, wait_key: str, event_name: str, /, type: Any) -> Any: ...
    def wait_for_event(
        self,
        wait_key: str,
        event_name: str,
        /,
        type: Any = Any,  # noqa: A002
    ) -> Any:
        """Return the payload of an event of this run; yield until it is published.

        An event published before is taken at once. The payload is memoized by `wait_key`: a later
        publish does not change what this wait has returned.

        Args:
            wait_key: names the wait, unique among the workflow's sleeps and waits.
            event_name: the event's name, as in `Client.publish_event_tx`.
            type: what the payload is decoded to; plain builtins if not given.

        Raises:
            ContextError: as for `execute`.
            DecodeError: the payload does not fit the type.
            DriftError: with `on_drift="error"`, the wait was begun for another event.
        """
        _check_key("event_name", event_name)
        self._enter("wait_key", wait_key)
        try:
            return self._wait_for_event(wait_key, event_name, type)
        finally:
            self._guard.leave()

    def random_uuidv7(self, key: str) -> UUID:
        """Return a random UUID of version 7, the same at every replay.

        It is committed before it is returned, so what is done with it can be recognised later,
        whatever happens to this process.

        Raises:
            ContextError: as for `execute`; or the key stands for the other kind of value.
        """
        self._enter("key", key)
        try:
            memos = self._journal.memos
            _check_kind(key, "a number", memos.uint64s)
            text = memos.uuids.get(key)
            if text is None:
                text = str(uuid7())
                place = self._journal.places.take("random", key)
                self._journal.commit_random(RandomRecord(key, "uuidv7", text, None, place))
                memos.uuids[key] = text
            else:
                self._journal.places.pass_by("random", key)
            return UUID(text)
        finally:
            self._guard.leave()

    def random_uint64(self, key: str) -> int:
        """Return a random number from 0 to 2**64 - 1, the same at every replay.

        It is committed before it is returned, as with `random_uuidv7`.

        Raises:
            ContextError: as for `execute`; or the key stands for the other kind of value.
        """
        self._enter("key", key)
        try:
            memos = self._journal.memos
            _check_kind(key, "a UUID", memos.uuids)
            number = memos.uint64s.get(key)
            if number is None:
                number = secrets.randbits(64)
                # The column is a signed bigint, as in the reference package.
                signed = number - (1 << 64) if number >> 63 else number
                place = self._journal.places.take("random", key)
                self._journal.commit_random(RandomRecord(key, "uint64", None, signed, place))
                memos.uint64s[key] = number
            else:
                self._journal.places.pass_by("random", key)
            return number
        finally:
            self._guard.leave()

    def end(self) -> None:
        """Refuse every further use: the attempt is over."""
        self._is_ended = True

    def fail_step(self, reason: Exception | None) -> tuple[StepRecord, Exception] | None:
        """Return what is to be recorded of a step that does not end; see `StepRunner.fail`."""
        return self._steps.fail(reason)

    def _sleep(self, wait_key: str, wake_in_s: float) -> None:
        memo = self._wait_memo(wait_key, "sleep")
        if memo is not None:
            if memo.is_satisfied:
                self._journal.places.pass_by("wait", wait_key)
                return
            wake_in_s = memo.remaining_s or 0.0
        if wake_in_s <= 0:
            if memo is not None:
                self._remember_wait(wait_key, "sleep", None, is_satisfied=True)
            return
        self._remember_wait(wait_key, "sleep", None, is_satisfied=False)
        if self._details is not None:
            self._details.sleep(wait_key, wake_in_s)
        self._journal.suspend(Yielded(Outcome(OutcomeKind.SLEEPING, wake_in_s=wake_in_s)))

    def _wait_for_event(self, wait_key: str, event_name: str, value_type: Any) -> Any:
        memo = self._wait_memo(wait_key, "event")
        if memo is not None:
            self._drift.compare_event(wait_key, memo, event_name)
            if memo.is_satisfied:
                self._journal.places.pass_by("wait", wait_key)
                return _event(event_name, memo.payload, value_type)
        # A run that waited takes what woke it; one that comes to its wait now, the last published.
        payload = None if memo is None else self._journal.memos.events.get(event_name)
        if payload is None:
            payload = self._journal.read_event(event_name)
        if payload is not None:
            value = _event(event_name, payload, value_type)
            self._remember_wait(wait_key, "event", event_name, is_satisfied=True, payload=payload)
            return value
        self._remember_wait(wait_key, "event", event_name, is_satisfied=False)
        if self._details is not None:
            self._details.wait(wait_key, event_name)
        return self._journal.suspend(Yielded(Outcome(OutcomeKind.WAITING_EVENT)))

    def _remember_wait(
        self,
        wait_key: str,
        wait_type: str,
        event_name: str | None,
        *,
        is_satisfied: bool,
        payload: Payload = NO_PAYLOAD,
    ) -> None:
        place = self._journal.places.take("wait", wait_key)
        self._journal.remember_wait(
            WaitRecord(wait_key, wait_type, event_name, is_satisfied, payload, place)
        )

    def _wait_memo(self, wait_key: str, wait_type: str) -> WaitMemo | None:
        memo = self._journal.memos.waits.get(wait_key)
        if memo is not None and memo.type != wait_type:
            raise ContextError(
                f"wait key {wait_key!r} stands for a wait of type {memo.type!r} in this run"
            )
        return memo

    def _enter(self, what: str, key: str) -> None:
        """Begin engine code, of which `leave` of the guard is the end."""
        self._check_usable()
        _check_key(what, key)
        if self._steps.current is not None:
            raise ContextError(
                f"a primitive was called inside step {self._steps.current!r};"
                " call it in the workflow function"
            )
        self._guard.enter()

    def _check_usable(self) -> None:
        if self._is_ended:
            raise ContextError("this attempt has ended; its context cannot be used any more")
        if threading.get_ident() != self._thread_id:
            raise ContextError("the context works only in the thread that runs the workflow")
        if self._journal.suspension is not None:
            # User code swallowed the suspension; it still holds.
            raise self._journal.suspension
        self._journal.check_taken()
        if self._engine.abandoned.is_set():
            self._journal.suspend(Interrupted("the worker is stopping"))


def _event(name: str, payload: Payload, wanted: Any) -> Any:
    try:
        return payloads.decode(payload, wanted)
    except PayloadError as error:
        error.of = f"the payload of event {name!r}"
        raise


def _check_key(what: str, key: object) -> None:
    fault = why_no_key(key)
    if fault is not None:
        raise ContextError(f"{what} {fault}")


def _check_kind(key: str, other: str, others: Container[str]) -> None:
    # They share a table, and the second would overwrite the first.
    if key in others:
        raise ContextError(f"random key {key!r} stands for {other} in this run")
