"""Claims: taking due runs for a worker.

A claim is a number on the run that grows by one each time the run is taken. Whoever writes for
the run names its claim, and a write whose claim is no longer the run's changes nothing: that is
the fence against workers that were stopped, cut off or judged dead and then went on.

    queued, sleeping ──claim──> running ──outcome──> completed | failed
          ^                        │
          └── yield, retry, release, lease lost ──┘   (waiting_event: until published)

Inputs come along with the claim. Memos of runs that were executed before are read right after it,
when nobody else adds to them any more. But neither if they weigh more than about 64 kB: hundreds
of runs may be claimed at once, and the executor reads what is heavy when its turn comes. They are
weighed as they are stored, and what may have been compressed to a hundredth is measured as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flows import round_trip, sql
from flows.clock import monotonic
from flows.database import pipeline
from flows.heads import Heads
from flows.payloads import Payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from flows.database import Connection

__all__ = [
    "Claimed",
    "ClaimedRun",
    "claim_runs",
    "release_strays",
    "sweep_waiting",
    "wake_satisfied",
]


_IS_FRESH, _IS_HEAVY, _DUE_S = -5, -4, -1
"""Where they are in a row of the answer."""


class ClaimedRun(msgspec.Struct, frozen=True, gc=False):
    """A run taken by this worker.

    Attributes:
        shard: its `workflow_name_shard`.
        run_id: its id as text.
        claim: the fencing token.
        attempts: failed attempts so far.
        is_suspect: whether its process has died while it ran, so that it runs alone.
        input: what it was begun with.
        prefetched: its memos as read after the claim, None if it never ran; empty if it is so heavy
            that they, and perhaps its input, did not come along.
        deadline_s: when it fails at the latest, on the monotonic clock; None for never.
        trace_context: the trace it was begun in, see `flows.tracing`; None for none.
        later_s: how many seconds after `deadline_s` its deadline was before this claim, its first;
            infinitely many for none. None if it has been taken before.
        claimed_s: when the claim was answered, on the monotonic clock.
    """

    shard: str
    run_id: str
    claim: int
    attempts: int
    is_suspect: bool
    input: Payload
    prefetched: str | None
    deadline_s: float | None = None
    trace_context: str | None = None
    later_s: float | None = None
    claimed_s: float = 0.0


class Claimed(NamedTuple):
    """What was found in some shards.

    Attributes:
        runs: the runs taken.
        next_due_s: the shards that have no due run left, each with the seconds until its next
            sleeping run is due, None if none is.
        is_late: whether there may be more in a moment, of which nobody tells.
    """

    runs: list[ClaimedRun]
    next_due_s: dict[str, float | None]
    is_late: bool


def claim_runs(
    connection: Connection,
    schema: str,
    shards: Sequence[str],
    limit: int,
    worker_id: UUID,
    now: datetime | None = None,
    *,
    blindly: bool = False,
    run_timeout_s: float | None = None,
    heads: Heads | None = None,
    quiet_key: int | None = None,
) -> Claimed:
    """Take up to `limit` due runs, from the shards in their order, and commit.

    Where there are several shards, one round trip asks all of them whether a run is due, and each
    that has one takes another.

    Args:
        connection: an autocommit connection of the engine's.
        schema: where the tables are.
        shards: the shards to look at.
        limit: how many runs at most.
        worker_id: who takes them.
        now: the time to judge by, None for the database's.
        blindly: take from the first shard without asking: it is likely to have enough.
        run_timeout_s: how long after its first claim a run fails at the latest, None for never.
        heads: where earlier claims of the same worker have ended, None to look at whole queues.
        quiet_key: asks first whether runs are being begun of which nobody tells, see `flows.quiet`.
    """
    claiming = _Claiming(connection, schema, limit, worker_id, now, run_timeout_s, heads or Heads())
    if quiet_key is not None:
        claiming.first = [("find_late", {"quiet_key": quiet_key})]
    left = list(shards)
    if left and (blindly or len(left) == 1):
        claiming.take(left.pop(0))
    if left and claiming.wanted:
        for shard in claiming.peek(left):
            if claiming.wanted:
                claiming.take(shard)
    return Claimed(claiming.runs, claiming.next_due_s, claiming.is_late)


class _Claiming:
    """One call of `claim_runs`."""

    def __init__(
        self,
        connection: Connection,
        schema: str,
        limit: int,
        worker_id: UUID,
        now: datetime | None,
        run_timeout_s: float | None,
        heads: Heads,
    ) -> None:
        self._heads = heads
        self._run_timeout_s = run_timeout_s
        self._connection = connection
        self._schema = schema
        self._prefetch = sql.load("prefetch_memos", schema)
        self._limit = limit
        self._worker_id = worker_id
        self._now = now
        self.first: list[round_trip.Query] = []
        self.is_late = False
        self.runs: list[ClaimedRun] = []
        self.next_due_s: dict[str, float | None] = {}

    @property
    def wanted(self) -> int:
        """How many runs are still to be taken."""
        return self._limit - len(self.runs)

    def _ask(self, queries: Sequence[round_trip.Query]) -> Sequence[round_trip.Answered]:
        """Return the answers to queries; the first time ask what is to be asked before them."""
        first, self.first = self.first, []
        answers = round_trip.execute(self._connection, self._schema, [*first, *queries])
        if first:
            # What is not late now is committed, and so the next queries see it.
            self.is_late = bool(_first(answers[0]))
        return answers[len(first) :]

    def peek(self, shards: Sequence[str]) -> list[str]:
        """Return those of the shards that have a due run, in one round trip."""
        looks = [("peek_queue", {"shard": shard, "now": self._now}) for shard in shards]
        answers = self._ask(looks)
        due = []
        for shard, answer in zip(shards, answers, strict=True):
            due_s = _first(answer)
            if due_s is not None and due_s <= 0:
                due.append(shard)
            else:
                self.next_due_s[shard] = due_s
        return due

    def take(self, shard: str) -> None:
        """Claim from one shard, in one round trip, and another if memos are to be read."""
        from_s = self._heads.begin(shard, self.wanted, monotonic())
        values = {
            "shard": shard,
            "limit": self.wanted,
            "from_s": from_s,
            "worker_id": self._worker_id,
            "now": self._now,
            "run_timeout_s": self._run_timeout_s,
        }
        # Asked first: a sleep that ends between the two statements is in one of the answers.
        queries = [("read_next_due", values), ("claim_runs", values)]
        sleeping, claimed = self._ask(queries)
        now_s = monotonic()
        rows = claimed.fetchall()
        memos = self._memos(
            shard, [row[0] for row in rows if not row[_IS_FRESH] and not row[_IS_HEAVY]]
        )
        claimed_s = monotonic()
        for run_id, token, attempts, suspect, *stored in rows:
            *payload, left_s, is_fresh, is_heavy, trace, later_s, _ = stored
            deadline_s = None if left_s is None else now_s + left_s
            prefetched = memos.get(run_id, "") if is_heavy or not is_fresh else None
            self.runs.append(
                ClaimedRun(
                    shard,
                    run_id,
                    token,
                    attempts,
                    suspect,
                    Payload(*payload),
                    prefetched,
                    deadline_s,
                    trace,
                    later_s,
                    claimed_s,
                )
            )
        self._heads.claimed(shard, rows[-1][_DUE_S] if rows else None, is_full=not self.wanted)
        if self.wanted and from_s is not None:
            # Behind the head there are no more; now all that is left.
            self.take(shard)
        elif self.wanted:
            self.next_due_s[shard] = _first(sleeping)

    def _memos(self, shard: str, run_ids: list[str]) -> dict[str, str]:
        # Once they are claimed nobody else adds to them.
        if not run_ids:
            return {}
        values = {"shard": shard, "run_ids": run_ids, "now": self._now}
        return dict(self._connection.execute(self._prefetch, values).fetchall())


def _first(answer: round_trip.Answered) -> float | None:
    """Return the number in an answer of one row at most."""
    rows = answer.fetchall()
    return rows[0][0] if rows else None


def release_strays(
    connection: Connection,
    schema: str,
    shards: Sequence[str],
    worker_id: UUID,
    known: Sequence[str],
) -> int:
    """Give back what the worker has claimed without hearing of it; commits.

    Args:
        connection: an autocommit connection of the engine's.
        schema: where the tables are.
        shards: the shards to look at, in which nobody else claims for this worker.
        worker_id: the worker.
        known: ids of the runs it knows to hold, whose outcome is not committed yet.

    Returns:
        How many were given back.
    """
    query = sql.load("release_strays", schema)
    values = {"worker_id": worker_id, "known": list(known)}
    return sum(connection.execute(query, {"shard": shard, **values}).rowcount for shard in shards)


def wake_satisfied(connection: Connection, schema: str, shard: str, run_ids: Sequence[str]) -> int:
    """Queue those of the runs that wait for an event which is there; commits.

    Returns:
        How many were queued.
    """
    query = sql.load("wake_satisfied", schema)
    return connection.execute(query, {"shard": shard, "run_ids": list(run_ids)}).rowcount


def sweep_waiting(
    connection: Connection, schema: str, shards: Sequence[str], window_s: float | None
) -> int:
    """Queue the waiting runs whose event is there although nobody said so; commits.

    Args:
        connection: an autocommit connection of the engine's.
        schema: where the tables are.
        shards: the shards to look at.
        window_s: look at runs that began to wait within so many seconds; None looks at all.

    Returns:
        How many were queued.
    """
    query = sql.load("sweep_waiting", schema)
    with pipeline(connection):
        swept = [
            connection.execute(query, {"shard": shard, "window_s": window_s}) for shard in shards
        ]
    return sum(cursor.rowcount for cursor in swept)
