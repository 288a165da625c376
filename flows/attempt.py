"""One attempt: run the workflow function of a claimed run and record how it ended.

    claimed ──> run the function ──┬─ returned ──────────────> completed
                                   ├─ raised, tries left ────> sleeping
                                   ├─ raised, or overdue ────> failed
                                   ├─ cancelled ─────────────> cancelled
                                   ├─ slept or waits ────────> sleeping | waiting_event
                                   ├─ interrupted ───────────> queued, the attempt is not counted
                                   ├─ claim lost ────────────> nothing: another worker has the run
                                   └─ given up ──────────────> ended from outside, by the ladder

The outcome goes through `wf.tx` where that is open, and to the committer where it is not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from flows import payloads, run_logging, tracing
from flows.clock import monotonic
from flows.context import Context
from flows.database import is_interruption
from flows.details import details_of
from flows.errors import (
    ContextError,
    PayloadError,
    RunTimeoutError,
    Suspend,
    TerminalError,
    WorkflowPanicError,
)
from flows.failures import describe, first_line, stack_of
from flows.journal import Journal
from flows.limits import Limits
from flows.records import Outcome, OutcomeKind
from flows.retry import wait_s
from flows.suspension import Cancelled, ClaimLost, Interrupted, Overdue, Yielded

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.board import Cell
    from flows.claims import ClaimedRun
    from flows.engine import Engine
    from flows.payloads import Payload
    from flows.records import RunRecord
    from flows.registry import Workflow
    from flows.tracing import TracedSpan

__all__ = ["Attempt"]

INTERRUPTION_PAUSE_S = (0.25, 60.0)
MAX_REMEMBERED = 1000

_ABORTED = (
    "a statement on wf.tx had failed, so nothing of it could be committed; put statements that"
    " may fail into `with wf.tx.transaction():`"
)
_HELD = (
    "the workflow function ended inside `with wf.tx.transaction():` or a copy, which a generator or"
    " an ExitStack holds open, so nothing of it could be committed; end it first"
)


class Attempt:
    """One try at executing a claimed run."""

    def __init__(
        self,
        engine: Engine,
        workflow: Workflow[Any, Any],
        run: ClaimedRun,
        cell: Cell | None = None,
        on_given_up: Callable[[], None] | None = None,
    ) -> None:
        """Prepare an attempt in the thread that will `execute` it.

        Args:
            engine: what attempts share.
            workflow: of the run.
            run: what was claimed.
            cell: where to show what is being done, None for nowhere.
            on_given_up: told when the attempt was ended because its thread is stuck.
        """
        self._engine = engine
        self._workflow = workflow
        self._run = run
        self._cell = cell
        self._journal = Journal(engine, run, workflow.commit)
        self._transaction = self._journal.transaction
        self._limits = Limits(engine, self._transaction, run.deadline_s, self._end_from_outside)
        self._details = details_of(engine.logger, run.run_id)
        self._context = Context(
            engine, workflow, run, self._journal, self._limits, cell, self._details
        )
        self._on_given_up = on_given_up
        self._began_s = 0.0
        self._span: TracedSpan | None = None

    @property
    def record(self) -> RunRecord:
        """What the attempt hands to the committer."""
        return self._journal.record

    @property
    def is_given_up(self) -> bool:
        """Whether it was ended from outside because its thread is stuck."""
        return self._limits.guard.is_given_up

    def execute(self) -> None:
        """Run the workflow function and hand its outcome on; raises nothing of the workflow's."""
        if self._engine.meter is not None:
            self._began_s = monotonic()
        name, run = self._workflow.name, self._run
        if self._cell is not None:
            self._cell.begin(run.run_id, run.claim, run.attempts + 1, run.deadline_s)
        token = run_logging.scope.set(run_logging.RunScope(name, run.run_id, run.attempts + 1))
        try:
            span = self._span = tracing.open_attempt(name, run)
            if span is None:
                self._execute()
            else:
                with span:
                    self._execute()
        finally:
            run_logging.scope.reset(token)

    def _execute(self) -> None:
        ended = outcome = self._outcome()
        if self._limits.guard.is_given_up:
            return
        self._journal.let_go()
        if self._transaction.is_open:
            outcome = self._finish_transaction(outcome)
        self._limits.end()
        self._end_span(outcome or ended)
        if self._details is not None:
            self._details.end(outcome or ended)
        if outcome is not None:
            self._measure(self._journal.record)
            self._engine.committer.submit(self._journal.record, outcome)
            self._engine.committer.wait_for_room()
        self._journal.end()
        if self._cell is not None:
            self._cell.end()

    def _measure(self, record: RunRecord) -> None:
        """Note with the outcome that is about to be recorded how long the attempt took."""
        if self._began_s:
            record.took_s = monotonic() - self._began_s

    def _end_span(self, outcome: Outcome | None) -> None:
        if self._span is None:
            return
        if outcome is None:
            how = "claim_lost"
        elif outcome.kind is OutcomeKind.RELEASED:
            how = "interrupted"
        elif outcome.kind is OutcomeKind.FAILED and outcome.wake_in_s is not None:
            how = "retrying"
        else:
            how = outcome.kind.value
        self._span.end(how)

    def sever(self) -> None:
        """Cut the attempt's transaction from another thread: the run is free to be taken."""
        self._transaction.sever()

    def cancel(self) -> None:
        """Have the attempt end because somebody wants its run cancelled; from any thread."""
        self._limits.cancel()

    def wake(self) -> None:
        """End its wait between tries of a step, for it to see that the worker stops."""
        self._limits.wake()

    def _outcome(self) -> Outcome | None:
        run = self._run
        try:
            self._journal.read()
            if self._details is not None:
                memos = self._journal.memos
                count = len(memos.steps) + len(memos.waits)
                self._details.begin(self._workflow.name, run.attempts + 1, count)
            if self._journal.memos.is_cancelled:
                return Outcome(OutcomeKind.CANCELLED)
            if run.deadline_s is not None:
                error = RunTimeoutError(f"{run.shard}:{run.run_id}")
                self._limits.begin(run.deadline_s, error)
            return self._call(self._context)
        except Suspend as suspension:
            return self._suspended(self._journal.suspension or suspension)
        except Exception as error:  # noqa: BLE001  whatever the workflow raised
            return self._raised(error)
        except BaseException as error:  # noqa: BLE001  an exit ends the run, not the worker
            panic = WorkflowPanicError(error, stack_of(error))
            panic.__cause__ = error
            return self._raised(panic)
        finally:
            self._context.end()

    def _call(self, context: Context) -> Outcome:
        workflow = self._workflow
        types = workflow.types
        if types.takes_input:
            returned = self._limits.guard.call(workflow.function, context, self._input())
        else:
            returned = self._limits.guard.call(workflow.function, context)
        if self._journal.suspension is not None:
            raise self._journal.suspension
        if self._transaction.interruption is not None:
            # User code swallowed the error; what it wrote is lost all the same.
            return self._released(self._transaction.interruption)
        self._journal.check_taken()
        return Outcome(OutcomeKind.COMPLETED, output=self._output(returned))

    def _input(self) -> Any:
        try:
            return payloads.decode(self._journal.input, self._workflow.types.input)
        except PayloadError as error:
            error.of = f"the input of workflow {self._workflow.name!r}"
            raise

    def _output(self, returned: Any) -> Payload:
        workflow = self._workflow
        try:
            output = workflow.encode(returned)
            if workflow.types.output is not Any:
                payloads.decode(output, workflow.types.output)
        except PayloadError as error:
            error.of = f"what workflow {workflow.name!r} returned"
            raise
        return output

    def _raised(self, error: Exception) -> Outcome | None:
        reason = self._limits.guard.reason
        if isinstance(reason, Cancelled | Overdue):
            return self._ended(reason)
        if self._journal.suspension is not None:
            return self._suspended(self._journal.suspension)
        if self._transaction.interruption is not None:
            return self._released(self._transaction.interruption)
        return self._failure(error)

    def _suspended(self, suspension: Suspend) -> Outcome | None:
        if self.is_given_up:
            return None
        reason = self._limits.guard.reason or suspension
        if isinstance(reason, Cancelled | Overdue):
            return self._ended(reason)
        if isinstance(suspension, Yielded):
            return suspension.outcome
        if isinstance(suspension, ClaimLost):
            self._engine.logger.warning("%s", suspension)
            self._transaction.rollback()
            return None
        return self._released(suspension)

    def _ended(self, reason: Cancelled | Overdue) -> Outcome:
        """The run was to end now: what its transaction holds is undone, and it is not retried."""
        self._transaction.rollback()
        if isinstance(reason, Overdue):
            text = describe(reason.error)
            if self._span is not None:
                self._span.fail(reason.error)
            self._log_failure(text, None)
            return Outcome(OutcomeKind.FAILED, error_text=text)
        self._engine.logger.info("run %s cancelled", self._run.run_id)
        return Outcome(OutcomeKind.CANCELLED)

    def _end_from_outside(self) -> None:
        """Record how the attempt ends, whose thread is stuck and never gets to do it."""
        self._limits.end()
        where = self._limits.guard.stack()
        self._transaction.abandon()
        reason = self._limits.guard.reason
        failed = self._context.fail_step(_error_of(reason))
        what = f"run {self._run.run_id} of {self._workflow.name}"
        record = self._journal.record
        if failed is not None:
            step, error = failed
            what += f", step {step.key},"
            error.add_note(f"it did not end when it was told to:\n{where}")
            with self._engine.committer.lock:
                record.steps[step.key] = msgspec.structs.replace(step, error_text=describe(error))
        if isinstance(reason, Cancelled | Overdue):
            outcome = self._ended(reason)
        else:
            assert failed is not None, "only a step has a time of its own"
            outcome = self._failure(failed[1])
        self._measure(record)
        self._end_span(outcome)
        self._engine.committer.submit(record, outcome)
        self._engine.on_stuck(
            f"{what} did not end within {self._engine.timeout_grace_s:g} s of being told to"
        )
        if self._on_given_up is not None:
            self._on_given_up()

    def _released(self, reason: BaseException) -> Outcome:
        """The run goes back to the queue, the attempt is not counted."""
        if self._engine.abandoned.is_set():
            return Outcome(OutcomeKind.RELEASED)
        self._engine.logger.warning(
            "run %s interrupted, to be done again: %s", self._run.run_id, first_line(reason)
        )
        return Outcome(OutcomeKind.RELEASED, wake_in_s=self._pause_s())

    def _pause_s(self) -> float | None:
        """At once the first time; what interrupts each attempt, as a timeout may, must not spin."""
        interruptions = self._engine.interruptions
        if len(interruptions) > MAX_REMEMBERED:
            interruptions.clear()
        before = interruptions[self._run.run_id]
        interruptions[self._run.run_id] = before + 1
        shortest_s, longest_s = INTERRUPTION_PAUSE_S
        return min(longest_s, shortest_s * 2.0 ** min(before - 1, 20)) if before else None

    def _failure(self, error: Exception) -> Outcome:
        """The run fails, or sleeps until its next attempt."""
        policy = self._workflow.run_retry
        failed = self._run.attempts + 1
        text = describe(error)
        if self._span is not None:
            self._span.fail(error)
        retry_in_s: float | None = None
        if failed < policy.max_attempts and not isinstance(error, TerminalError):
            try:
                retry_in_s = wait_s(policy.backoff, failed)
            except Exception as broken:  # noqa: BLE001  a backoff that raises ends the retries
                error.add_note(f"it is not tried again, since its backoff failed: {broken!r}")
                text = describe(error)
        self._log_failure(text, retry_in_s)
        return Outcome(OutcomeKind.FAILED, error_text=text, wake_in_s=retry_in_s)

    def _log_failure(self, text: str, retry_in_s: float | None) -> None:
        self._engine.logger.log(
            logging.WARNING if retry_in_s is None else logging.INFO,
            "run %s of %s failed (attempt %d of %d): %s",
            self._run.run_id,
            self._workflow.name,
            self._run.attempts + 1,
            self._workflow.run_retry.max_attempts,
            first_line(text),
        )

    def _finish_transaction(self, outcome: Outcome | None) -> Outcome | None:
        """Commit `wf.tx` with the outcome; return an outcome that is still to be recorded."""
        transaction = self._transaction
        if outcome is None or outcome.kind is OutcomeKind.RELEASED:
            transaction.rollback()
            return outcome
        transaction.end_streams()
        if transaction.is_held or transaction.is_aborted:
            reason = _HELD if transaction.is_held else _ABORTED
            transaction.rollback()
            if transaction.interruption is not None:
                return self._released(transaction.interruption)
            is_failed = outcome.kind is OutcomeKind.FAILED
            return outcome if is_failed else self._failure(ContextError(reason))
        return self._commit_transaction(outcome)

    def _commit_transaction(self, outcome: Outcome) -> Outcome | None:
        transaction = self._transaction
        transaction.record.outcome = outcome
        self._measure(transaction.record)
        try:
            transaction.commit()
        except Interrupted as interruption:
            transaction.rollback()
            return self._released(interruption)
        except Exception as error:  # noqa: BLE001  a value that cannot be sent costs the run only
            if transaction.interruption is None and not is_interruption(error, of_ours=True):
                return self._failure(error)
            # If the connection was lost, nobody knows whether it was committed. Releasing is
            # fenced: it does nothing to a run that has its outcome.
            return self._released(error)
        return None


def _error_of(reason: BaseException | None) -> Exception | None:
    """Return what a step has failed with that did not end for the sake of its run."""
    if isinstance(reason, Overdue):
        return reason.error
    return ContextError("the run was cancelled") if isinstance(reason, Cancelled) else None
