"""Picking runs one at a time, of any workflow, for `Worker.process_one`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.claims import ClaimedRun, claim_runs, sweep_waiting
from flows.clock import seconds
from flows.oversight import end_overdue, sweep_cancellations
from flows.shard import shard_values_for_workflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from flows.config import DBConfig
    from flows.database import Connection
    from flows.registry import Registry

__all__ = ["Picker"]


class Picker:
    """Claims one due run at a time.

    Workflows take turns, and so do the shards of each, or a flooded one would starve others.
    """

    def __init__(self, registry: Registry, config: DBConfig) -> None:
        """Prepare to pick from the workflows of a registry; each has its first turn to come."""
        self._registry = registry
        self._schema = config.schema
        self._shard_count = config.shard_count
        self._rotation = 0

    def pick(
        self, connection: Connection, check_lease: Callable[[Connection], UUID]
    ) -> ClaimedRun | None:
        """Claim a due run, None if there is none, also among those that nobody has told of.

        Args:
            connection: an autocommit connection of the engine's.
            check_lease: called before each look; tells under which id to claim.
        """
        run = self._claim(connection, check_lease(connection))
        if run is None and self._sweep(connection):
            run = self._claim(connection, check_lease(connection))
        return run

    def _claim(self, connection: Connection, worker_id: UUID) -> ClaimedRun | None:
        names = self._registry.names()
        first, turn = self._rotation % len(names), self._rotation // len(names)
        self._rotation += 1
        for name in names[first:] + names[:first]:
            shards = self._shards(name)
            start = turn % len(shards)
            timeout = self._registry.get(name).run_timeout
            claimed = claim_runs(
                connection,
                self._schema,
                shards[start:] + shards[:start],
                1,
                worker_id,
                run_timeout_s=None if timeout is None else seconds(timeout),
            )
            if claimed.runs:
                return claimed.runs[0]
        return None

    def _sweep(self, connection: Connection) -> bool:
        """End what must not go on; tell whether a run is due to which something has happened."""
        names = self._registry.names()
        for name in names:
            sweep_cancellations(connection, self._schema, self._shards(name), None)
            end_overdue(connection, self._schema, self._shards(name))
        return any(
            sweep_waiting(connection, self._schema, self._shards(name), None) for name in names
        )

    def _shards(self, name: str) -> list[str]:
        return shard_values_for_workflow(name, self._shard_count)
