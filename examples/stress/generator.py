"""The generator: begins the runs of a generation, many in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from flows import Client, DBConfig

from .load import Load, Settings
from .tables import Connection, GenerationTables
from .workflows import Job, registry_for

__all__ = ["begin", "turns"]


def begin(
    connection: Connection, config: DBConfig, generation: uuid.UUID, settings: Settings
) -> Iterator[int]:
    """Begin the runs of a generation and yield, after each commit, how many there are.

    Whoever stops in the middle has begun exactly those that are noted.
    """
    tables = GenerationTables(connection, config)
    client = Client(db_config=config)
    registry = registry_for(1)
    begun = 0
    for workflow, numbers in turns(settings.loads, settings.batch_size):
        load = settings.loads[workflow]
        jobs = [Job(number, load.steps, load.iterations, load.sleep_seconds) for number in numbers]
        with connection.transaction():
            keys = client.begin_many_tx(connection, registry.get(workflow), jobs)
            tables.note_runs(generation, workflow, keys)
        begun += len(keys)
        yield begun


def turns(loads: dict[str, Load], batch_size: int) -> Iterator[tuple[str, range]]:
    """Yield a batch of each workflow in turn until none has runs left to begin."""
    left = {workflow: range(load.runs) for workflow, load in loads.items()}
    while left:
        for workflow, numbers in list(left.items()):
            if numbers:
                yield workflow, numbers[:batch_size]
                left[workflow] = numbers[batch_size:]
            else:
                del left[workflow]
