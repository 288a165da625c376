"""Retention: runs that ended long enough ago are deleted, a few at a time.

A pass walks the runs of a shard in the order in which they were begun, in pages of the primary key.
Each page is a transaction of its own, and what it deletes is what had ended soon enough; after it
comes a pause of several times what it took, so that others keep the database. A pass ends at the
first page of runs that were all begun too late to have ended long ago.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from flows import sql
from flows.database import is_lost
from flows.shard import shard_values_for_workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.config import DBConfig

__all__ = ["ENDED", "FIRST", "PAGE", "Pruned", "Retention", "pause_s", "prune_page"]

ENDED = ("completed", "failed", "cancelled")

PAGE = 500
"""Runs that one transaction looks at, and deletes at most."""

FIRST = uuid.UUID(int=0)
"""Where a pass begins: before every run."""

_SHARE = 4
"""A pass works for a quarter of the time at most."""

_LONGEST_PAUSE_S = 2.0
_PASS_S = 60.0


class Pruned(NamedTuple):
    """What became of a page.

    Attributes:
        last: the last run of the page; the next one begins after it. None at the shard's end.
        deleted: how many runs are gone.
    """

    last: uuid.UUID | None
    deleted: int


def prune_page(
    connection: psycopg.Connection[tuple[object, ...]],
    config: DBConfig,
    shard: str,
    after: uuid.UUID,
    statuses: Sequence[str],
    older_s: float,
) -> Pruned:
    """Delete those of the next runs of a shard that ended longer ago. Commits.

    Args:
        connection: in autocommit.
        config: where the tables are.
        shard: whose runs.
        after: the last run of the page before, or `FIRST`.
        statuses: some of `ENDED`.
        older_s: how many seconds ago they ended at least.
    """
    values = {
        "shard": shard,
        "after": after,
        "statuses": list(statuses),
        "older_s": older_s,
        "limit": PAGE,
    }
    row = connection.execute(sql.load("prune_runs", config.schema), values).fetchone()
    if row is None:
        return Pruned(None, 0)
    last, deleted, are_young = row
    assert isinstance(last, uuid.UUID)
    assert isinstance(deleted, int)
    return Pruned(None if are_young else last, deleted)


def pause_s(took_s: float) -> float:
    """Return how long to leave the database to others after a page that took so long."""
    return min(_LONGEST_PAUSE_S, took_s * (_SHARE - 1))


class Retention:
    """What is to be deleted next, of workflows that keep their runs for some time.

    Knows neither the clock nor a process: `work` does one page, and says when to come again.
    """

    def __init__(self, config: DBConfig, keep_s: Mapping[str, float]) -> None:
        """Keep the ended runs of each workflow for so many seconds."""
        self._config = config
        self._keep_s: dict[str, float] = {}
        self._shards: list[str] = []
        self._after = FIRST
        self.serve(keep_s)

    def serve(self, keep_s: Mapping[str, float]) -> None:
        """Take other workflows; a pass under way begins anew."""
        if dict(keep_s) != self._keep_s:
            self._keep_s = dict(keep_s)
            self._shards = []

    @property
    def is_idle(self) -> bool:
        """Whether no workflow wants anything deleted."""
        return not self._keep_s

    @property
    def is_between_passes(self) -> bool:
        """Whether the next page is the first one of a pass."""
        return not self._shards

    def work(self, connection: psycopg.Connection[tuple[object, ...]]) -> tuple[int, bool]:
        """Do one page; return how many runs were deleted, and whether the pass is over.

        Raises:
            psycopg.Error: the page could not be deleted. Unless the connection is lost, this pass
                leaves the rest of its shard alone.
        """
        if not self._shards:
            self._shards = [
                shard
                for name in self._keep_s
                for shard in shard_values_for_workflow(name, self._config.shard_count)
            ]
            self._after = FIRST
        shard = self._shards[-1]
        keep_s = self._keep_s[shard.rpartition("_")[0]]
        try:
            page = prune_page(connection, self._config, shard, self._after, ENDED, keep_s)
        except psycopg.Error as error:
            if not is_lost(error):
                self._leave_shard()
            raise
        if page.last is None:
            self._leave_shard()
        else:
            self._after = page.last
        return page.deleted, self.is_between_passes

    def _leave_shard(self) -> None:
        self._shards.pop()
        self._after = FIRST

    def next_pass_s(self) -> float:
        """Return how long to wait from one pass to the next: a tenth of the shortest retention."""
        return max(0.5, min(_PASS_S, min(self._keep_s.values(), default=_PASS_S) / 10))
