"""Counts of runs by workflow and status, at a price that does not grow with the tables.

Of each shard the runs that were begun last are counted, `COUNTED` at most; a shard with fewer is
counted exactly. In a larger one the statuses that have an index are counted by it, up to the same
limit, and for `completed` and `cancelled` the planner is asked, whose statistics `ANALYZE` renews.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from flows import sql
from flows.cli.options import STATUSES
from flows.cli.plain import printable
from flows.cli.quantities import duration
from flows.cli.run_list import shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.cli.run_filter import RunFilter
    from flows.database import Connection

__all__ = ["COUNTED", "WorkflowStats", "read_stats", "table"]

COUNTED = 20_000

_INDEXED = ("queued", "sleeping", "running", "waiting_event", "failed", "cancelled")


class WorkflowStats(msgspec.Struct, frozen=True):
    """The runs of a workflow. What `flows stats --json` prints has these names.

    Attributes:
        counts: how many runs have each status.
        estimated: the statuses whose count is an estimate.
        at_least: the statuses of which there are more than were counted.
        oldest_due_s: how many seconds the longest waiting run is due, None if none is.
        finished: how many runs ended in the window.
        window_s: how long that is.
        is_finished_exact: whether no run that is older than those counted can have ended in it.
    """

    workflow_name: str
    counts: dict[str, int]
    estimated: list[str]
    at_least: list[str]
    oldest_due_s: float | None
    finished: int
    window_s: float
    is_finished_exact: bool


class _ShardStats(msgspec.Struct, frozen=True):
    counts: dict[str, int]
    estimated: set[str]
    at_least: set[str]
    oldest_due_s: float | None
    finished: int
    is_whole: bool


def read_stats(
    connection: Connection, schema: str, chosen: RunFilter, window_s: float, limit: int = COUNTED
) -> list[WorkflowStats]:
    """Read the counts of each chosen workflow, in the order of their names."""
    found: dict[str, list[_ShardStats]] = {}
    for shard in shards(connection, schema, chosen):
        stats = _shard_stats(connection, schema, shard.name, window_s, limit)
        found.setdefault(shard.name.rpartition("_")[0], []).append(stats)
    return [_together(name, parts, window_s) for name, parts in sorted(found.items())]


def _shard_stats(
    connection: Connection, schema: str, shard: str, window_s: float, limit: int
) -> _ShardStats:
    def rows(query: str, **values: Any) -> Sequence[tuple[Any, ...]]:
        found = connection.execute(
            sql.load(query, schema), {"shard": shard, "limit": limit, **values}, prepare=False
        )
        return found.fetchall()

    newest = rows("report_newest_runs", window_s=window_s)
    counts = {status: count for status, count, _ in newest}
    is_whole = sum(counts.values()) < limit
    due = rows("peek_queue", now=None)
    oldest_s = -due[0][0] if due and due[0][0] <= 0 else None
    finished = sum(ended for *_, ended in newest)
    if is_whole:
        return _ShardStats(counts, set(), set(), oldest_s, finished, is_whole)
    counts = dict(rows("report_indexed_runs"))
    at_least = {status for status in _INDEXED if counts.get(status, 0) >= limit}
    if counts.get("queued", 0) + counts.get("sleeping", 0) >= limit:
        at_least |= {"queued", "sleeping"}
    estimated: set[str] = {status for status in STATUSES if status not in _INDEXED}
    for status in estimated:
        counts[status] = _estimate(connection, schema, shard, status)
    return _ShardStats(counts, estimated, at_least, oldest_s, finished, is_whole)


def _estimate(connection: Connection, schema: str, shard: str, status: str) -> int:
    explain = b"EXPLAIN (FORMAT JSON) " + sql.load("estimate_runs", schema)
    row = connection.execute(explain, {"shard": shard, "status": status}, prepare=False).fetchone()
    assert row is not None
    return _planned_rows(json.loads(row[0]) if isinstance(row[0], str | bytes) else row[0])


def _planned_rows(explained: Any) -> int:
    plan = explained[0]["Plan"]
    if "Distributed Query" not in plan:
        return int(plan["Plan Rows"])
    # Citus says nothing itself: the plan of the node that has the shard is within.
    tasks = plan["Distributed Query"]["Job"]["Tasks"]
    return sum(_planned_rows(remote) for task in tasks for remote in task["Remote Plan"])


def _together(name: str, parts: list[_ShardStats], window_s: float) -> WorkflowStats:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    due = [part.oldest_due_s for part in parts if part.oldest_due_s is not None]
    return WorkflowStats(
        name,
        {status: counts[status] for status in STATUSES},
        sorted(set().union(*(part.estimated for part in parts))),
        sorted(set().union(*(part.at_least for part in parts))),
        max(due, default=None),
        sum(part.finished for part in parts),
        window_s,
        all(part.is_whole for part in parts),
    )


def table(stats: Sequence[WorkflowStats]) -> str:
    """Return a line per workflow: `~` stands before an estimate, `+` behind what may be more."""
    heads = ["workflow", *STATUSES, "oldest due", "ended/min"]
    lines = [heads, *map(_line, stats)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "".join(
        "  ".join(
            each.rjust(width) if column else each.ljust(width)
            for column, (each, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in lines
    )


def _line(stats: WorkflowStats) -> list[str]:
    def told(status: str) -> str:
        before = "~" if status in stats.estimated else ""
        return f"{before}{stats.counts[status]}{'+' if status in stats.at_least else ''}"

    rate = stats.finished * 60 / stats.window_s
    return [
        printable(stats.workflow_name),
        *map(told, STATUSES),
        "" if stats.oldest_due_s is None else duration(stats.oldest_due_s),
        f"{rate:.1f}{'' if stats.is_finished_exact else '+'}",
    ]
