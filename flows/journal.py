"""The journal of one attempt: memos it found, and where new ones go.

New memos go to the committer as they come, or through `wf.tx` where that is open, so that they
stand or fall with the business writes. Random values are always committed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec
import psycopg

from flows import sql
from flows.database import is_interruption
from flows.errors import ContextError, DatabaseError
from flows.failures import describe
from flows.memos import Memos, WaitMemo, read_heavy, read_memos
from flows.payloads import NO_PAYLOAD, Payload
from flows.places import Places
from flows.records import RandomRecord, RunRecord, StepRecord, WaitRecord
from flows.suspension import ClaimLost, Interrupted
from flows.transaction import REFUSED, AttemptTransaction

if TYPE_CHECKING:
    from flows.claims import ClaimedRun
    from flows.engine import Engine
    from flows.errors import Suspend
    from flows.registry import CommitMode

__all__ = ["Journal"]

POOLED_SETTLE_S = 5.0
"""How long an attempt that holds a session of a pooler waits for the committer to get one."""


class Journal:
    """What an attempt knows and what it has to write.

    Attributes:
        input: what the run was begun with.
        memos: of earlier attempts and of this one.
        places: where the code has come to, by which new memos are ordered.
        record: what goes to the committer.
        transaction: `wf.tx`.
        suspension: why the workflow function must be left, None while it may go on. It holds even
            if user code swallows it.
    """

    def __init__(self, engine: Engine, run: ClaimedRun, commit: CommitMode) -> None:
        self._engine = engine
        self._run = run
        self._commit = commit
        self.input = run.input
        self.memos: Memos
        is_first = run.prefetched is None
        self.record = RunRecord(run.shard, run.run_id, run.claim, is_first=is_first)
        self.transaction = AttemptTransaction(engine, self.record, self.suspend, self._forget_step)
        self.suspension: Suspend | None = None
        self.places: Places

    def suspend(self, suspension: Suspend) -> NoReturn:
        """Leave the workflow function; the first reason counts.

        Raises:
            Suspend: always.
        """
        if self.suspension is None:
            self.suspension = suspension
        raise self.suspension

    def end(self) -> None:
        """The attempt has ended: nothing of it may go on holding what holds it.

        It would be left to the garbage collector, with all that the attempt has made.
        """
        self.let_go()
        del self.transaction

    def let_go(self) -> None:
        """The workflow function has been left: what its frames hold open ends here."""
        if self.suspension is not None:
            self.suspension.__traceback__ = None

    def read(self) -> None:
        """Read the memos that came with the claim, or were too heavy for that.

        Raises:
            Interrupted: the database could not be asked for them.
        """
        self.memos = self._read()
        self.places = Places(self.memos.places)

    def _read(self) -> Memos:
        run = self._run
        if run.prefetched != "":
            return read_memos(run.prefetched)
        try:
            with self._engine.pool.connection() as connection:
                self.input, memos = read_heavy(
                    connection, self._engine.schema, run.shard, run.run_id
                )
        except psycopg.OperationalError as error:
            self.suspend(Interrupted(f"its memos could not be read: {error}"))
        return memos

    def remember_step(self, step: StepRecord) -> None:
        """Keep what a step returned or failed with.

        Raises:
            Interrupted: with `commit="step"`, when it cannot be told whether it was committed.
            psycopg.Error: likewise, when Postgres refused the commit: the step has failed.
            ContextError: likewise, inside a savepoint of the workflow's.
        """
        if step.is_completed:
            self.memos.steps[step.key] = step.output
        else:
            # Its key comes again, in the next try or by a second call.
            self.record.is_first = False
        if not self.transaction.is_open:
            committer = self._engine.committer
            with committer.lock:
                self.record.steps[step.key] = step
                self.record.size += step.size
                committer.remember(self.record)
            committer.wait_for_room()
            return
        self.transaction.record.steps[step.key] = step
        if self._commit == "step" and step.is_completed:
            self._commit_step(step)

    def remember_wait(self, wait: WaitRecord) -> None:
        """Keep a sleep or a wait, open or satisfied."""
        self.memos.waits[wait.key] = WaitMemo(
            wait.type, wait.is_satisfied, None, wait.payload, wait.event_name
        )
        if self.transaction.is_open:
            self.transaction.record.add_wait(wait)
            return
        committer = self._engine.committer
        with committer.lock:
            self.record.add_wait(wait)
            if wait.is_satisfied:
                # An open one must not be seen before its run has yielded.
                committer.remember(self.record)

    def commit_random(self, value: RandomRecord) -> None:
        """Commit a random value now, even while `wf.tx` is open: it depends on nothing.

        Raises:
            Interrupted: the worker stops and the value could not be committed.
            ClaimLost: another worker has the run, and a value of its own.
        """
        committer = self._engine.committer
        with committer.lock:
            self.record.add_random(value)
            committer.remember(self.record)
        # The transaction may hold the pooler's last session, which the committer needs for this.
        holds_session = self.transaction.is_open and self._engine.is_pooled
        if not committer.settle(self.record, POOLED_SETTLE_S if holds_session else None):
            self.suspend(Interrupted("the random value could not be committed"))
        if self.record.is_stale:
            self.suspend(ClaimLost(f"run {self._run.run_id} was taken by another worker"))
        self.check_taken()

    def check_taken(self) -> None:
        """Fail the attempt if one of its memos could not be recorded.

        Raises:
            DatabaseError: the database would not take it.
        """
        if self.record.refused is not None:
            raise DatabaseError(REFUSED.format(self.record.refused))

    def read_event(self, event_name: str) -> Payload | None:
        """Return the payload of an event of this run, None where it is not published yet.

        Raises:
            Interrupted: the database could not be asked.
        """
        query = sql.load("read_event", self._engine.schema)
        values = {"shard": self._run.shard, "run_id": self._run.run_id, "event_name": event_name}
        try:
            if self.transaction.is_open:
                row = _fetch_one(self.transaction.connection(), query, values)
            else:
                with self._engine.pool.connection() as connection:
                    row = _fetch_one(connection, query, values)
        except psycopg.OperationalError as error:
            self.suspend(Interrupted(f"the event could not be read: {error}"))
        if row is None:
            return None
        document, binary, codec = row
        return Payload(None if document is None else document.encode(), binary, codec)

    def _forget_step(self, key: str) -> None:
        self.memos.steps.pop(key, None)

    def _commit_step(self, step: StepRecord) -> None:
        try:
            self.transaction.commit()
        except ContextError:
            raise
        except Interrupted as interruption:
            self.suspend(interruption)
        except Exception as error:
            if is_interruption(error, of_ours=True):
                # It may have been committed: the next attempt sees the memo, or runs it again.
                self.suspend(Interrupted(f"the step could not be committed: {error}"))
            # What the step wrote was refused, as by a deferred constraint, or cannot be sent.
            self._forget_step(step.key)
            self.remember_step(
                msgspec.structs.replace(
                    step, is_completed=False, output=NO_PAYLOAD, error_text=describe(error)
                )
            )
            raise


def _fetch_one(connection: Any, query: bytes, values: dict[str, Any]) -> tuple[Any, ...] | None:
    return cast("tuple[Any, ...] | None", connection.execute(query, values).fetchone())
