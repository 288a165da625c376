"""How much of a drain is left, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows import sql
from flows.shard import shard_values_for_workflow

if TYPE_CHECKING:
    from datetime import datetime

    from flows.config import DBConfig
    from flows.database import Connection
    from flows.supervisor.messages import Unfinished

__all__ = ["DrainWatch"]

_SHORTEST_S = 0.1
_LONGEST_S = 2.0
_SHARE = 20
"""Counting may take a twentieth of the time: with many runs left it is done less often."""


@dataclass(frozen=True, slots=True)
class DrainWatch:
    """Counts the runs of the workflows that are drained.

    Attributes:
        config: where the tables are.
        names: the workflows.
    """

    config: DBConfig
    names: tuple[str, ...]

    def unfinished(self, connection: Connection) -> Unfinished:
        """Return how many runs are unfinished, by workflow and status; sleeping ones included."""
        query = sql.load("report_unfinished_runs", self.config.schema)
        unfinished: Unfinished = {}
        for name, status, count in connection.execute(query, {"shards": self._shards()}):
            unfinished.setdefault(name, {})[status] = count
        return unfinished

    def failed(self, connection: Connection, since: datetime) -> dict[str, int]:
        """Return how many runs have failed since a moment of the database's clock, by workflow.

        Reads them once, at the end: of finished runs only those that failed are looked at.
        """
        query = sql.load("report_failed_runs", self.config.schema)
        values = {"shards": self._shards(), "since": since}
        return dict(connection.execute(query, values).fetchall())

    def _shards(self) -> list[str]:
        return [
            shard
            for name in self.names
            for shard in shard_values_for_workflow(name, self.config.shard_count)
        ]

    @staticmethod
    def pause_s(took_s: float) -> float:
        """Return the seconds from one count to the next, by how long the last one took."""
        return min(_LONGEST_S, max(_SHORTEST_S, took_s * _SHARE))
