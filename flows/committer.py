"""The committer: one transaction for what many attempts left behind.

    executor ──remember, submit──> queue ──gather──> group ──one commit──> Postgres
                                     ^                 │ refused: split until the bad run is alone
                                     └── next group ───┘ connection lost: the same group again

While one group is being committed the next gathers, so a group is as large as the load asks for.
Memos without an outcome wait a millisecond, because the outcome of a short run follows within
microseconds and then both travel in one commit. And where the process uses a core up, a small group
waits for others, up to 20 ms: each commit takes their turn from the executors a dozen times.

A group has a bounded number of bytes too, and so has what waits: an attempt that has brought more
waits in turn, so that a slow database does not fill this process's memory with results.

Memos of a run are never committed after its outcome: both are in one record, which is taken whole.
"""

from __future__ import annotations

import threading
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from psycopg import errors as pg

from flows import plans, writes
from flows.clock import monotonic, process_time
from flows.database import connect, is_lost, is_pooled, is_transient
from flows.failures import describe, first_line, storable
from flows.outages import OutageLog
from flows.pace import Load
from flows.records import Outcome, OutcomeKind, RunRecord

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from flows.awaited import Awaited
    from flows.database import Connection
    from flows.meter import Meter
    from flows.writes import Sent, Statement

__all__ = ["Committer"]

MAX_GROUP = 1000
MAX_GROUP_BYTES = 16 * 1024 * 1024
"""Of payloads in one transaction, though it has one record at least."""

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of payloads that wait to be committed: attempts that would add to more than that wait."""

LINGER_S = 0.001

SMALL_GROUP = 10
REST_S = 0.02
"""How long a smaller group than that waits for others at most, in a process that uses a core up."""

DOZE_S = 0.005
"""After which it looks whether the process still does: those that are executed may only wait."""

RECONNECT_S = (0.05, 5.0)


class Committer:
    """Persists the records of a worker's attempts, in groups, from a thread of its own.

    Attributes:
        lock: guards the records between their attempt and this thread.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        logger: logging.Logger,
        on_queued: Callable[[str], None],
        on_failure: Callable[[BaseException], None],
        notify_channel: str | None,
        meter: Meter | None = None,
        awaited: Awaited | None = None,
    ) -> None:
        """Prepare a committer; `start` it.

        Args:
            dsn: the database.
            schema: where the tables are.
            logger: for what goes wrong.
            on_queued: called with a shard that has a run due now or soon, after the commit.
            on_failure: told of an error that ended the thread.
            notify_channel: where other workers are told the same, None for nowhere.
            meter: counts what is committed; None where nobody wants to know.
            awaited: the runs for whose end somebody waits, None where nobody asks.
        """
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)
        self._settled = threading.Condition(self.lock)
        self._dsn = dsn
        self._schema = schema
        self._logger = logger
        self._outage = OutageLog(logger, "commit")
        self._on_queued = on_queued
        self._on_failure = on_failure
        self._channel = notify_channel
        self._meter = meter
        self._awaited = awaited
        self._queue: dict[RunRecord, int] = {}
        self._bytes = 0
        self._in_flight: set[RunRecord] = set()
        self._load = Load()
        self._is_urgent = False
        self._is_awaited = False
        self._is_stopping = False
        self._is_idle = False
        self._is_resting = False
        self._has_failed = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="flows-committer", daemon=True)
        self._gave_up = threading.Event()
        self.backend_pid = 0
        self.waits_since_s = 0.0

    def start(self) -> None:
        """Connect and start the thread.

        Raises:
            DatabaseError: the database cannot be reached.
        """
        self._connected()
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Commit what is queued and end the thread.

        Returns:
            True if everything was committed within the time.
        """
        with self.lock:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._gave_up.set()
        with self.lock:
            self._settled.notify_all()
        return not self._thread.is_alive() and not self._queue

    @property
    def backlog(self) -> int:
        """How many records are waiting to be committed."""
        return len(self._queue) + len(self._in_flight)

    @property
    def is_full(self) -> bool:
        """Whether more bytes wait to be committed than should be in memory."""
        return self._bytes > MAX_WAITING_BYTES

    def run_ids(self) -> list[str]:
        """Return the ids of the runs whose records are waiting or on their way."""
        with self.lock:
            return [record.run_id for record in (*self._queue, *self._in_flight)]

    def submit(self, record: RunRecord, outcome: Outcome | None = None) -> None:
        """Queue what `record` holds, and the outcome of its attempt where that has ended."""
        with self.lock:
            if outcome is not None:
                record.outcome = outcome
                record.size += outcome.output.size
                self._is_urgent = True
            self._enqueue(record)

    def wait_for_room(self) -> None:
        """Wait while more bytes are to be committed than should be in memory."""
        if not self.is_full:
            return
        with self.lock:
            while self.is_full and not self._has_failed and not self._gave_up.is_set():
                self._hurry()
                self._settled.wait()

    def hurry(self) -> None:
        """Commit what is queued at once: nothing is executed whose turn that would take."""
        with self.lock:
            self._hurry()

    def remember(self, record: RunRecord) -> None:
        """Queue new memos; the caller holds `lock`, under which it has added them."""
        self._enqueue(record)

    def settle(self, record: RunRecord, timeout_s: float | None = None) -> bool:
        """Wait until everything queued for `record` is committed.

        Returns:
            False if the time is over or the committer has ended before.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        with self.lock:
            while record in self._queue or record in self._in_flight:
                if self._has_failed or self._gave_up.is_set():
                    return False
                if record in self._queue:
                    self._hurry()
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return False
                self._settled.wait(left)
        return True

    def withdraw(self, record: RunRecord) -> RunRecord:
        """Take back what `record` holds and is not on its way yet."""
        with self.lock:
            self._bytes -= self._queue.pop(record, 0)
            return record.take()

    def _enqueue(self, record: RunRecord) -> None:
        self._bytes += record.size - self._queue.get(record, 0)
        self._queue[record] = record.size
        if self._is_idle or (self._is_resting and len(self._queue) >= SMALL_GROUP):
            self._changed.notify()

    def _hurry(self) -> None:
        if self._queue:
            self._is_urgent = self._is_awaited = True
            if self._is_idle or self._is_resting:
                self._changed.notify()

    def _run(self) -> None:
        try:
            while group := self._gather():
                taken = [part for _, part in group]
                self.waits_since_s = monotonic()
                self._commit(taken)
                self.waits_since_s = 0.0
                with self.lock:
                    for record, part in group:
                        if part.is_stale or part.refused is not None:
                            record.is_stale = record.is_stale or part.is_stale
                            record.refused = record.refused or part.refused
                    self._in_flight.clear()
                    self._bytes -= sum(part.size for part in taken)
                    self._settled.notify_all()
                for shard in sorted(writes.shards_to_look_at(taken)):
                    self._on_queued(shard)
        except _StoppedError:
            self._logger.warning(
                "stopped with %d records not committed; their runs will be taken up again",
                self.backlog,
            )
        except BaseException as error:  # noqa: BLE001  the worker ends with it
            self._has_failed = True
            self._on_failure(error)
        finally:
            with self.lock:
                self._settled.notify_all()
            if self._connection is not None:
                self._connection.close()

    def _gather(self) -> list[tuple[RunRecord, RunRecord]]:
        with self.lock:
            self._rest()
            # Again after waiting: what was queued may have been withdrawn meanwhile.
            while not self._queue:
                if self._is_stopping:
                    return []
                self._is_idle = True
                self._changed.wait()
                if not self._is_urgent and not self._is_stopping:
                    self._linger()
                self._is_idle = False
                self._rest()
            records = self._take_group()
            self._is_urgent = self._is_awaited = bool(self._queue)
            self._in_flight.update(records)
            return [(record, _take(record)) for record in records]

    def _take_group(self) -> list[RunRecord]:
        records: list[RunRecord] = []
        size = 0
        for record in self._queue:
            size += record.size
            if records and (size > MAX_GROUP_BYTES or len(records) == MAX_GROUP):
                break
            records.append(record)
        for record in records:
            del self._queue[record]
        return records

    def _linger(self) -> None:
        deadline = monotonic() + LINGER_S
        while not self._is_urgent and (left := deadline - monotonic()) > 0:
            self._changed.wait(left)

    def _rest(self) -> None:
        """Leave the interpreter to the executors for a moment, if all of it is used."""
        began_s = monotonic()
        self._is_resting = True
        for until_s in (began_s + DOZE_S, began_s + REST_S):
            if not self._load.is_full(monotonic(), process_time()):
                break
            while self._may_rest() and (left := until_s - monotonic()) > 0:
                self._changed.wait(left)
        self._is_resting = False

    def _may_rest(self) -> bool:
        is_small = 0 < len(self._queue) < SMALL_GROUP
        return is_small and not self._is_awaited and not self._is_stopping

    def _commit(self, records: list[RunRecord]) -> None:
        delay_s, longest_s = RECONNECT_S
        while True:
            try:
                self._write(records)
            except Exception as error:
                # Whatever it was, a value that cannot be sent included, costs one run and no more.
                if not is_transient(error):
                    self._split(records, error)
                    return
                self._outage.failed(error)
                self._drop_connection(error)
                if self._gave_up.wait(delay_s):
                    raise _StoppedError from error
                delay_s = min(longest_s, delay_s * 2)
            else:
                self._outage.worked()
                return

    def _split(self, records: list[RunRecord], error: Exception) -> None:
        if len(records) > 1:
            middle = len(records) // 2
            self._commit(records[:middle])
            self._commit(records[middle:])
            return
        (record,) = records
        # What comes after the first line may repeat values: DETAIL and CONTEXT.
        self._logger.error("run %s cannot be recorded: %s", record.run_id, first_line(error))
        if record.outcome is None:
            # Its attempt fails itself. A failure written from here would wait for the run's row,
            # which wf.tx may hold until the attempt ends, while that waits for us.
            record.refused = error
            return
        if record.outcome.kind is not OutcomeKind.FAILED:
            self._commit([_failed(record, describe(error))])
        elif record.outcome.wake_in_s is not None:
            # Its backoff may have named a time that Postgres cannot keep. Memos may be fine.
            record.outcome = _without_retry(record.outcome, error)
            self._commit([record])
        elif record.steps or record.waits or record.randoms:
            self._commit([_failed(record, record.outcome.error_text or "")])
        else:
            raise error

    def _write(self, records: list[RunRecord]) -> None:
        connection = self._connected()
        plans.renew(connection)
        told = list(writes.notifications(records, self._channel, self._awaited))
        began_s = monotonic()
        try:
            sent = self._send(connection, records, told)
        except pg.UniqueViolation:
            # Memos that should have been new: nobody heard that this group was committed, say.
            if not any(record.is_first for record in records):
                raise
            for record in records:
                record.is_first = False
            sent = self._send(connection, records, told)
        took_s = monotonic() - began_s
        plans.took(connection, took_s)
        sent.mark_stale()
        if self._awaited is not None:
            self._awaited.forget(records)
        if self._meter is not None:
            self._meter.wrote_group(len(records), took_s, sent.stale)
            self._meter.committed(records)
        if sent.stale:
            self._logger.warning(
                "%d outcomes dropped: their runs were taken by another worker", sent.stale
            )
        for shard in sent.woken:
            self._on_queued(shard)

    def _send(
        self, connection: Connection, records: list[RunRecord], told: list[Statement]
    ) -> Sent:
        statements = chain(writes.statements_for(records), told)
        return writes.commit(connection, self._schema, statements, writes.looks_after(records))

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._connection = connect(self._dsn, "flows committer")
            # Through a pooler it is made up, and might be that of somebody else.
            self.backend_pid = 0 if is_pooled(connection) else connection.info.backend_pid
            plans.keep(connection)
        return self._connection

    def _drop_connection(self, error: Exception) -> None:
        connection = self._connection
        if connection is not None and (is_lost(error) or connection.broken):
            self._connection = None
            connection.close()


class _StoppedError(Exception):
    """The worker stopped while the database could not be reached."""


def _take(record: RunRecord) -> RunRecord:
    part = record.take()
    outcome = part.outcome
    if record.refused is None or outcome is None or outcome.kind is OutcomeKind.FAILED:
        return part
    # The attempt had ended before it could know.
    return _failed(part, describe(record.refused))


def _without_retry(outcome: Outcome, error: Exception) -> Outcome:
    why = f"It is not tried again: its next attempt cannot be recorded: {first_line(error)}"
    text = storable(f"{outcome.error_text or ''}\n\n{why}")
    return msgspec.structs.replace(outcome, error_text=text, wake_in_s=None)


def _failed(record: RunRecord, error_text: str) -> RunRecord:
    # What it took of the memory that may wait is given back with it.
    failed = RunRecord(record.shard, record.run_id, record.claim, size=record.size)
    failed.outcome = Outcome(OutcomeKind.FAILED, error_text=error_text)
    return failed
