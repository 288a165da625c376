"""`wf.tx`: the transaction of an attempt, opened at its first use.

It starts by locking its run where the claim still holds, so two attempts of one run can never
both write. From then on the run's memos go through it too, together with the business writes.
Within a step it stands on a savepoint: the writes of a step and its memo stand or fall together,
and a try that failed leaves nothing behind for the next try.

    closed ──first use──> open (fenced) ──end of attempt, or of step──> committed | rolled back
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus

from flows import direct, fence, plans, sessions, writes
from flows.clock import monotonic
from flows.database import is_interruption, pipeline
from flows.errors import ContextError, DatabaseError
from flows.reading import Reading
from flows.records import RunRecord
from flows.suspension import ClaimLost, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flows.engine import Engine
    from flows.errors import Suspend
    from flows.guard import Guard
    from flows.records import StepRecord

__all__ = ["REFUSED", "AttemptTransaction"]

REFUSED = "the database would not take a memo of this run: {}"

_GIVEN_UP = "a step has left wf.tx within a COPY, so it was closed; use copy() instead of execute()"

_Connection = psycopg.Connection[Any]


class AttemptTransaction:
    """The engine's side of `wf.tx`.

    Attributes:
        number: how many transactions the attempt has opened.
        interruption: an error after which the attempt must be done again, None if there was none.
        is_executing: whether a statement of the user's is under way.
    """

    def __init__(
        self,
        engine: Engine,
        run: RunRecord,
        suspend: Callable[[Suspend], NoReturn],
        forget_step: Callable[[str], None],
    ) -> None:
        """Prepare a transaction; `connection` opens it.

        Args:
            engine: what attempts share.
            run: what goes to the committer.
            suspend: leaves the workflow function.
            forget_step: told of a step whose writes are undone after it has returned.
        """
        self._engine = engine
        self._suspend = suspend
        self._forget_step = forget_step
        self._run = run
        self._connection: _Connection | None = None
        self._is_in_step = False
        self._has_savepoint = False
        self._is_direct = False
        self._is_touched = False
        self._is_given_up = False
        self._blocks = 0
        self._reading: Reading | None = None
        self._stopping = threading.Lock()
        self.is_executing = False
        self._record: RunRecord | None = None
        self.number = 0
        self.interruption: BaseException | None = None

    @property
    def record(self) -> RunRecord:
        """Memos that are to be written in the transaction that is open."""
        if self._record is None:
            # Most attempts open none.
            run = self._run
            self._record = RunRecord(run.shard, run.run_id, run.claim)
        return self._record

    @property
    def is_open(self) -> bool:
        """Whether there is a transaction now."""
        return self._connection is not None

    @property
    def is_aborted(self) -> bool:
        """Whether the open transaction has failed and can only be rolled back."""
        connection = self._connection
        return (
            connection is not None
            and connection.info.transaction_status is not TransactionStatus.INTRANS
        )

    @property
    def is_held(self) -> bool:
        """Whether user code is inside a block or a copy, so that nothing can be committed."""
        return self._blocks > 0 or (self._reading is not None and self._reading.is_on)

    @property
    def reading(self) -> Reading:
        """The streams and copies on the connection."""
        if self._reading is None:
            # Most attempts have none.
            self._reading = Reading()
        return self._reading

    def end_streams(self) -> None:
        """End what user code has left open of its streams."""
        if self._reading is not None:
            self._reading.end()

    def connection(self) -> _Connection:
        """Return the connection, in a transaction that is fenced and ready for user statements.

        Raises:
            ClaimLost: another worker has the run.
            ContextError: it is busy with a stream or a copy, or was closed for a failed step.
            Interrupted: no connection can be had, or the one that was open is lost.
        """
        self._check_reading()
        if self._is_given_up:
            raise ContextError(_GIVEN_UP)
        try:
            if self._connection is None:
                self._connection = self._open()
                self.number += 1
            elif self._is_in_step and not self._has_savepoint and not self.is_aborted:
                self._connection.execute("SAVEPOINT flows_step")
                self._has_savepoint = True
        except psycopg.Error as error:
            if not self._interrupts(error, of_ours=True):
                raise
            self._suspend(Interrupted(f"wf.tx cannot go on: {error}"))
        return self._connection

    def _check_reading(self) -> None:
        if self._reading is not None:
            self._reading.check()

    def begin_step(self) -> None:
        """A step's function is about to be called."""
        self._is_in_step = True

    def keep_step(self) -> None:
        """The step returned: its writes stay.

        Raises:
            ContextError: it left the transaction aborted, so its writes are lost.
        """
        self._is_in_step = False
        if self._connection is None or not self._has_savepoint:
            return
        self.end_streams()
        if self.is_aborted:
            raise ContextError(
                "the step returned although a statement on wf.tx had failed, which undid its"
                " writes; put statements that may fail into `with wf.tx.transaction():`"
            )
        with self.watch():
            self._connection.execute("RELEASE SAVEPOINT flows_step")
        self._has_savepoint = False

    def undo_step(self) -> None:
        """The step failed: its writes go."""
        self._is_in_step = False
        if self._connection is None or not self._has_savepoint:
            return
        self._has_savepoint = self._is_direct = False
        self.end_streams()
        if self._connection.info.transaction_status is TransactionStatus.ACTIVE:
            # Within a COPY that execute() has begun: no statement reaches it any more.
            self._connection.close()
            self._is_given_up = True
        elif self.interruption is None:
            with contextlib.suppress(psycopg.Error), self.watch():
                # An error here is an interruption, which watch() has noted.
                self._connection.execute("ROLLBACK TO SAVEPOINT flows_step")
                self._connection.execute("RELEASE SAVEPOINT flows_step")

    def commit(self) -> None:
        """Commit business writes and records together; closes the transaction.

        Raises:
            ContextError: user code is inside `with wf.tx.transaction():`, a stream or a copy; the
                transaction stays open.
            Interrupted: earlier memos or this transaction could not be committed; it is closed.
            psycopg.Error: it failed; the transaction is closed all the same.
        """
        connection = self._connection
        if connection is None:
            return
        self._check_reading()
        if self._blocks:
            raise ContextError(
                "a step was finished inside `with wf.tx.transaction():`, where commit='step'"
                " cannot commit; put the block inside the step"
            )
        earlier = self._engine.committer.withdraw(self._run)
        record = self.record.take()
        try:
            self._send(connection, earlier, record)
        except BaseException:
            self._keep(earlier)
            self._keep(_failed_steps(record))
            self._roll_back(connection)
            raise
        finally:
            self._close()

    def rollback(self) -> None:
        """Undo business writes and records; closes the transaction."""
        self._keep(_failed_steps(self.record.take()))
        connection = self._connection
        if connection is not None:
            self._roll_back(connection)
            self._close()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Note errors of user statements that interrupt the attempt instead of failing it."""
        try:
            yield
        except psycopg.Error as error:
            if self._connection is not None and self._interrupts(error):
                self.interruption = error
            raise

    def _interrupts(self, error: psycopg.Error, *, of_ours: bool = False) -> bool:
        connection = self._connection
        if connection is not None and error.sqlstate is None and not connection.closed:
            # psycopg has refused something, as a cursor that is closed; nobody was asked.
            return False
        return is_interruption(error, of_ours=of_ours)

    @contextlib.contextmanager
    def block(self) -> Iterator[psycopg.Transaction]:
        """Run a user's `with wf.tx.transaction():`.

        Steps that returned in a block which is undone are undone with it, memo and writes.
        """
        with self.watch(), self.connection().transaction() as transaction:
            kept = dict(self.record.steps)
            self._blocks += 1
            try:
                yield transaction
            except BaseException:
                self._undo_steps_since(kept)
                self._is_direct = False
                raise
            finally:
                self._blocks -= 1

    def sever(self) -> None:
        """Cut the connection from another thread: the server rolls back and frees the run."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        # Whatever the attempt makes of it, it did not fail.
        self.interruption = psycopg.OperationalError("the worker is stopping")
        with contextlib.suppress(psycopg.Error, OSError):
            # Closed in the meantime: then there is nothing left to cut.
            connection.cancel_safe(timeout=2)
            _cut(connection)

    @contextlib.contextmanager
    def statement(self, guard: Guard) -> Iterator[None]:
        """Execute a statement of the user's that others may stop.

        Raises:
            TimeUp: the code that wants it must end.
        """
        self.is_executing = True
        try:
            # Whoever ends the code gives the reason first, and then looks for a statement.
            guard.check()
            yield
        finally:
            self.end_statement()

    def executed(self, traits: sessions.Traits, tag: str | None) -> None:
        """Note what a statement of the user's did to the session.

        Args:
            traits: what its text says.
            tag: the command tag of the server, None if there was none.
        """
        if sessions.forgets(tag):
            self._is_direct = False
        if sessions.leaves_something(traits, tag):
            self._is_touched = True

    def end_statement(self) -> None:
        """No statement of the user's is under way any more."""
        # A request to cancel that is on its way must not reach the next one.
        with self._stopping:
            self.is_executing = False

    def stop_statement(self, goes_on: Callable[[], bool], *, cut: bool) -> None:
        """End the statement under way from another thread, if `goes_on` says that it is meant.

        Returns when the server has taken the request.

        Args:
            goes_on: whether what must end has not ended yet.
            cut: cut the connection too, where a request would not do.
        """
        with self._stopping:
            connection = self._connection
            if connection is None or not self.is_executing or not goes_on():
                return
            with contextlib.suppress(psycopg.Error, OSError):
                # Closed meanwhile, or the server cannot be reached: then the cut comes next.
                connection.cancel_safe(timeout=2)
                if cut:
                    _cut(connection)

    def abandon(self) -> None:
        """Close the connection of a thread that was given up, from another one."""
        connection = self._connection
        self._connection = None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                # The server rolls back, and the run's row is free.
                _cut(connection)
            connection.close()
            self._engine.pool.putconn(connection)

    def _open(self) -> _Connection:
        try:
            connection, self._is_direct = fence.open_fenced(
                self._engine, self._run, savepoint=self._is_in_step
            )
        except (ClaimLost, Interrupted) as suspension:
            self._suspend(suspension)
        self._has_savepoint = self._is_in_step
        return connection

    def _send(self, connection: _Connection, earlier: RunRecord, record: RunRecord) -> None:
        """Write and commit; memos from before the transaction go with it or are there already."""
        if not self._engine.committer.settle(self._run):
            raise Interrupted("earlier memos could not be committed")
        if self._run.refused is not None:
            raise DatabaseError(REFUSED.format(self._run.refused))
        record.steps = {**earlier.steps, **record.steps}
        record.waits = {**earlier.waits, **record.waits}
        record.randoms = {**earlier.randoms, **record.randoms}
        began_s = monotonic()
        self._commit(connection, record)
        plans.took(connection, monotonic() - began_s)
        if self._engine.awaited is not None:
            self._engine.awaited.forget([record])
        if self._engine.meter is not None:
            self._engine.meter.committed([record])
        for shard in writes.shards_to_look_at([record]):
            self._engine.on_queued(shard)
        self._look_after(connection, record)

    def _commit(self, connection: _Connection, record: RunRecord) -> None:
        engine = self._engine
        if self._is_touched:
            sessions.take_back(connection)
        told = writes.notifications([record], engine.notify_channel, engine.awaited)
        statements = chain(writes.statements_for([record]), told)
        if self._is_direct and direct.takes(record):
            try:
                direct.commit(connection, engine.schema, statements)
            except pg.InvalidSqlStatementName as error:
                # By a DROP behind another statement in one text, say, of which nothing is seen
                # here. It will do so again.
                engine.sends_directly = False
                raise Interrupted("the session has forgotten its prepared statements") from error
            return
        with pipeline(connection):
            writes.send(connection, engine.schema, statements)
            # Not commit(), which in a pipeline waits for answers to what it has not sent yet where
            # that is more than a socket takes: megabytes of memos would hang here for ever.
            connection.execute("COMMIT")

    def _roll_back(self, connection: _Connection) -> None:
        self.end_streams()
        if not self.is_held:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
                return
        # Lost, so that the server has rolled back, or held by user code for ever: it will.
        connection.close()

    def _keep(self, record: RunRecord) -> None:
        """Leave to the committer what stays true although the transaction is undone."""
        with self._engine.committer.lock:
            self._run.steps.update(record.steps)
            self._run.waits = {**self._run.waits, **record.waits}
            self._run.randoms = {**self._run.randoms, **record.randoms}

    def _undo_steps_since(self, kept: dict[str, StepRecord]) -> None:
        for key, step in list(self.record.steps.items()):
            if step.is_completed and kept.get(key) is not step:
                del self.record.steps[key]
                self._forget_step(key)

    def _look_after(self, connection: _Connection, record: RunRecord) -> None:
        looks = list(writes.looks_after([record]))
        if not looks:
            return
        with pipeline(connection):
            sent = writes.send(connection, self._engine.schema, looks)
            connection.commit()
        for shard in sent.woken:
            self._engine.on_queued(shard)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._has_savepoint = False
        if connection is None:
            return
        if self._is_touched and not self._engine.is_pooled and not connection.closed:
            try:
                sessions.clean(connection)
            except psycopg.Error:
                # Lost, or ended by a timeout that the session was given: the pool replaces it.
                connection.close()
        self._is_touched = False
        self._engine.pool.putconn(connection)


def _cut(connection: _Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as cut:
        cut.shutdown(socket.SHUT_RDWR)


def _failed_steps(record: RunRecord) -> RunRecord:
    """Return what `record` tells of steps that failed: it is no memo and stays true."""
    failed = RunRecord(record.shard, record.run_id, record.claim)
    failed.steps = {key: step for key, step in record.steps.items() if not step.is_completed}
    return failed
