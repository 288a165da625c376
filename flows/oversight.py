"""What must not go on: runs past their deadline, and runs that somebody wants cancelled.

An attempt that is being executed here ends itself: it has known its deadline since its claim, and
is told of a request to cancel by the dispatcher, who hears of it or finds it at a poll. The rest is
done in the database, by the dispatchers of the run's workflow: a run that is queued, sleeping or
waiting for an event fails at its deadline, and one that was asked to be cancelled while it was
running, and is not any more, is cancelled.

No request is lost. It is committed before the run yields: then it is seen right after the yield is
committed, or with the next claim. Or after: then its notification comes when the run has yielded.
A lost notification is made up for by the next poll.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from flows import sql
from flows.clock import monotonic
from flows.database import pipeline
from flows.errors import RunTimeoutError
from flows.failures import describe
from flows.records import Outcome, OutcomeKind, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.claims import ClaimedRun
    from flows.database import Connection
    from flows.engine import Engine
    from flows.executor import ExecutorPool

__all__ = ["Oversight", "end_overdue", "sweep_cancellations"]

SHORTEST_POLL_S = 1.0
AGAIN_S = (0.05, 1.0)
"""When to look again for a run that was still running at its deadline: doubled each time, and never
rarer, because it hides the deadlines of others that come after its own."""

RECENT_S = 900.0
"""Polls look at requests of so many seconds; a dispatcher that starts looks at all."""

_ERROR_TYPE = f"{RunTimeoutError.__module__}.{RunTimeoutError.__qualname__}"


class Oversight:
    """Ends runs of one workflow; used by its dispatcher, in its thread.

    Attributes:
        due_at_s: when to `look` next, on the monotonic clock.
    """

    def __init__(self, engine: Engine, shards: Sequence[str]) -> None:
        """Prepare to look after the runs of some shards."""
        self._engine = engine
        self._shards = shards
        self._poll_s = SHORTEST_POLL_S
        self._poll_at_s = 0.0
        self._again_s = AGAIN_S[0]
        self._window_s: float | None = None
        self.due_at_s = 0.0

    def begin(self, poll_s: float) -> None:
        """There is a new connection: whatever was told meanwhile was not heard.

        From here on, look every `poll_s` seconds at the latest.
        """
        self._poll_s = max(poll_s, SHORTEST_POLL_S)
        self.due_at_s = self._poll_at_s = 0.0
        self._window_s = None

    def claimed(self, runs: Iterable[ClaimedRun]) -> None:
        """Note the deadlines of runs that were claimed here: they may yield before."""
        for run in runs:
            if run.deadline_s is not None:
                self.due_at_s = min(self.due_at_s, run.deadline_s)

    def told(
        self,
        connection: Connection,
        executors: ExecutorPool,
        by_shard: Mapping[str, Sequence[str]],
    ) -> None:
        """Look at runs of which was told that something has happened to them; commits."""
        with pipeline(connection):
            for shard, run_ids in by_shard.items():
                values = {"shard": shard, "run_ids": run_ids}
                connection.execute(sql.load("cancel_requested", self._engine.schema), values)
        self._cancel(connection, executors, by_shard)
        self._note(_next_deadlines(connection, self._engine.schema, list(by_shard)))

    def look(self, connection: Connection, executors: ExecutorPool) -> None:
        """End what is past its deadline, and at a poll what was asked to be cancelled; commits."""
        schema, now_s = self._engine.schema, monotonic()
        if now_s >= self._poll_at_s:
            sweep_cancellations(connection, schema, self._shards, self._window_s)
            self._cancel(connection, executors, None)
            self._window_s = RECENT_S
            self._poll_at_s = now_s + self._poll_s
        for run in executors.take_overdue(now_s):
            self._end(run, _outcome_of_overdue(run, now_s))
        overdue = end_overdue(connection, schema, self._shards)
        if overdue and self._engine.meter is not None:
            self._engine.meter.failed(overdue)
        self.due_at_s = self._poll_at_s
        self._note(_next_deadlines(connection, schema, self._shards))

    def _note(self, left_s: Iterable[float]) -> None:
        nearest_s = min(left_s, default=None)
        if nearest_s is None:
            return
        if nearest_s > 0:
            self._again_s = AGAIN_S[0]
        else:
            # Its attempt is about to end it, or to yield.
            nearest_s, self._again_s = self._again_s, min(AGAIN_S[1], self._again_s * 2)
        self.due_at_s = min(self.due_at_s, monotonic() + nearest_s)

    def _cancel(
        self,
        connection: Connection,
        executors: ExecutorPool,
        among: Mapping[str, Sequence[str]] | None,
    ) -> None:
        """Tell the attempts of runs that somebody wants cancelled; those named, or all."""
        held: dict[str, list[str]] = defaultdict(list)
        for shard, run_id in executors.held():
            if among is None or run_id in among.get(shard, ()):
                held[shard].append(run_id)
        if not held:
            return
        query = sql.load("read_cancellations", self._engine.schema)
        with pipeline(connection):
            cursors = [
                connection.execute(query, {"shard": shard, "run_ids": run_ids})
                for shard, run_ids in held.items()
            ]
        for cursor in cursors:
            for (run_id,) in cursor.fetchall():
                run = executors.cancel(run_id)
                if run is not None:
                    self._end(run, Outcome(OutcomeKind.CANCELLED))

    def _end(self, run: ClaimedRun, outcome: Outcome) -> None:
        """End a run that was claimed here and not begun."""
        record = RunRecord(run.shard, run.run_id, run.claim)
        self._engine.committer.submit(record, outcome)


def _outcome_of_overdue(run: ClaimedRun, now_s: float) -> Outcome:
    """Return what becomes of a run that has passed its deadline before it was begun.

    Where only this claim has set the deadline, its time has run for nothing, and it is given back.
    """
    deadline_s, later_s = run.deadline_s, run.later_s
    if deadline_s is not None and later_s is not None and deadline_s + later_s > now_s:
        return Outcome(OutcomeKind.NOT_BEGUN, later_s=later_s)
    error = RunTimeoutError(f"{run.shard}:{run.run_id}")
    return Outcome(OutcomeKind.FAILED, error_text=describe(error))


def end_overdue(connection: Connection, schema: str, shards: Sequence[str]) -> int:
    """Fail the runs that are past their deadline and not running; commits.

    Returns:
        How many have failed.
    """
    query = sql.load("fail_overdue", schema)
    with pipeline(connection):
        ended = [
            connection.execute(query, {"shard": shard, "now": None, "error_type": _ERROR_TYPE})
            for shard in shards
        ]
    return sum(cursor.rowcount for cursor in ended)


def sweep_cancellations(
    connection: Connection, schema: str, shards: Sequence[str], window_s: float | None
) -> int:
    """Cancel runs that are not running and were asked to be; commits.

    Args:
        connection: an autocommit connection of the engine's.
        schema: where the tables are.
        shards: the shards to look at.
        window_s: look at requests of so many seconds; None looks at all.

    Returns:
        How many were cancelled.
    """
    query = sql.load("sweep_cancellations", schema)
    with pipeline(connection):
        swept = [
            connection.execute(query, {"shard": shard, "window_s": window_s}) for shard in shards
        ]
    return sum(cursor.rowcount for cursor in swept)


def _next_deadlines(connection: Connection, schema: str, shards: Sequence[str]) -> list[float]:
    query = sql.load("read_next_deadline", schema)
    with pipeline(connection):
        cursors = [connection.execute(query, {"shard": shard, "now": None}) for shard in shards]
    return [row[0] for cursor in cursors if (row := cursor.fetchone()) is not None]
