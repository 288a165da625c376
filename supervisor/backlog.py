"""The backlog: what waits in the database, looked at every few seconds and never when asked.

So that whoever asks never waits for the database, however many runs are queued and whether it
answers or not. A look takes a twentieth of one session at most, and each of its statements has
seconds, after which the server ends it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from flows import clock, sql
from flows.database import connect, pipeline
from flows.errors import DatabaseError
from flows.shard import shard_values_for_workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["Backlog", "BacklogWatch", "look"]

MOST_RUNS = 100_000
"""Of one shard are counted; where there are more, there are at least so many."""

MOST_SCHEDULES = 1000
"""Of one workflow, likewise."""

_LATE_S = 10.0
"""A schedule is late when it should have fired so many seconds ago: the scheduler has had its
chance, and has been told again."""

_EVERY_S = 5.0
_SHARE = 20
"""How often to look: the rarer, the longer it takes."""

_PATIENCE_S = 10.0
"""A database that has not answered for so long does not answer."""

_BOUND = b"SET LOCAL statement_timeout = '5s'"


class Backlog(NamedTuple):
    """What waits, by workflow.

    Attributes:
        queued: how many runs are due.
        oldest_s: how long the oldest of them has been, in seconds; 0 where there is none.
        late: how many schedules are late.
    """

    queued: dict[str, int]
    oldest_s: dict[str, float]
    late: dict[str, int]


def look(
    connection: Connection,
    config: DBConfig,
    workflows: Sequence[str],
    most_runs: int = MOST_RUNS,
) -> Backlog:
    """Read what waits of some workflows, in one transaction.

    Raises:
        psycopg.Error: the database does not answer, or not in time.
    """
    queue = sql.load("measure_queue", config.schema)
    schedules = sql.load("count_late_schedules", config.schema)
    shards = [
        (name, shard)
        for name in workflows
        for shard in shard_values_for_workflow(name, config.shard_count)
    ]
    with connection.transaction(), pipeline(connection):
        # Of this transaction alone: a pooler lends the session to others.
        connection.execute(_BOUND, prepare=False)
        # Planned each time: a plan that is kept from an empty table would read a full one whole.
        counted = [
            connection.execute(
                queue, {"shard": shard, "limit": most_runs, "now": None}, prepare=False
            )
            for _, shard in shards
        ]
        late = connection.execute(
            schedules,
            {
                "workflow_names": list(workflows),
                "late_s": _LATE_S,
                "limit": MOST_SCHEDULES,
                "now": None,
            },
            prepare=False,
        )
    backlog = Backlog(dict.fromkeys(workflows, 0), dict.fromkeys(workflows, 0.0), dict(late))
    for (name, _), cursor in zip(shards, counted, strict=True):
        [(count, oldest_s)] = cursor.fetchall()
        backlog.queued[name] += count
        backlog.oldest_s[name] = max(backlog.oldest_s[name], oldest_s or 0.0)
    return backlog


class BacklogWatch:
    """Looks at the backlog until its process ends."""

    def __init__(self, dsn: str, config: DBConfig, workflows: Sequence[str]) -> None:
        """Prepare to look at some workflows; `start` it."""
        self._dsn = dsn
        self._config = config
        self._workflows = tuple(workflows)
        self._served = clock.StopSignal()
        self._found: Backlog | None = None
        self._asked_s: float | None = None

    @property
    def found(self) -> Backlog | None:
        """What was found last; None where the database does not answer, or has not yet."""
        asked_s = self._asked_s
        if asked_s is not None and clock.monotonic() - asked_s > _PATIENCE_S:
            return None
        return self._found

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="backlog", daemon=True).start()

    def serve(self, workflows: Sequence[str]) -> None:
        """From here on, look at these workflows; from any thread."""
        if tuple(workflows) != self._workflows:
            self._workflows = tuple(workflows)
            self._served.set()

    def _run(self) -> None:
        while True:
            try:
                with connect(self._dsn, "flows metrics") as connection:
                    while True:
                        self._look(connection)
            except (psycopg.Error, DatabaseError):
                # Whoever asks is told; what it is, the process says where it works with it.
                self._found = None
                self._served.wait(_EVERY_S)

    def _look(self, connection: Connection) -> None:
        began_s = self._asked_s = clock.monotonic()
        self._served.clear()
        self._found = look(connection, self._config, self._workflows)
        self._asked_s = None
        self._served.wait(max(_EVERY_S, _SHARE * (clock.monotonic() - began_s)))
