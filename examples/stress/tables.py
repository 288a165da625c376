"""What was begun, noted in the transaction that began it, and questions about what became of it.

A generation notes the key of each run beside the run itself: both are committed or neither. So a
run that is gone is missed, runs of other generations are not counted, and it does not matter how
a workflow's codec stores its input. Everything is counted and sorted by the server.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg

from flows import DBConfig, RunKey
from flows.sql import with_schema

__all__ = ["Connection", "Counts", "Distribution", "GenerationTables", "Trouble"]

Connection = psycopg.Connection[tuple[Any, ...]]

Counts = dict[str, dict[str, int]]
"""Runs by workflow and status; those that are not there any more have the status `missing`."""

_TABLES = (
    """
CREATE TABLE IF NOT EXISTS stress_generations (
    generation uuid NOT NULL PRIMARY KEY,
    settings jsonb NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now()
)""",
    """
CREATE TABLE IF NOT EXISTS stress_runs (
    generation uuid NOT NULL REFERENCES stress_generations ON DELETE CASCADE,
    workflow_name_shard text NOT NULL,
    run_id uuid NOT NULL,
    workflow_name text NOT NULL,
    PRIMARY KEY (generation, workflow_name_shard, run_id)
)""",
)

_NOTE_RUNS = """
INSERT INTO stress_runs (generation, workflow_name_shard, run_id, workflow_name)
SELECT %(generation)s, shard, run_id, %(workflow)s
FROM unnest(%(shards)s::text[], %(run_ids)s::uuid[]) AS begun (shard, run_id)"""

_DELETE_RUNS = """
DELETE FROM flows.runs AS run USING stress_runs AS begun
WHERE run.workflow_name_shard = begun.workflow_name_shard AND run.run_id = begun.run_id"""

_COUNT = """
SELECT begun.workflow_name, coalesce(run.status, 'missing'), count(*)
FROM stress_runs AS begun LEFT JOIN flows.runs AS run USING (workflow_name_shard, run_id)
WHERE begun.generation = %(generation)s
GROUP BY 1, 2"""

# Of completed runs `updated_at` is when they were completed: nothing changes them afterwards.
_DISTRIBUTION = """
SELECT workflow_name, count(*), avg(took),
    percentile_cont(%(fractions)s::float8[]) WITHIN GROUP (ORDER BY took),
    percentile_cont(%(fractions)s::float8[]) WITHIN GROUP (ORDER BY completed)
FROM (
    SELECT begun.workflow_name,
        extract(epoch FROM run.updated_at - run.created_at)::float8 AS took,
        extract(epoch FROM run.updated_at - generation.begun_at)::float8 AS completed
    FROM stress_generations AS generation
    JOIN stress_runs AS begun USING (generation)
    JOIN flows.runs AS run USING (workflow_name_shard, run_id)
    WHERE generation = %(generation)s AND run.status = 'completed'
) AS runs
GROUP BY workflow_name"""

_TROUBLES = """
SELECT begun.workflow_name_shard, begun.run_id, coalesce(run.status, 'missing') AS status,
    split_part(run.error_text, E'\\n', 1)
FROM stress_runs AS begun LEFT JOIN flows.runs AS run USING (workflow_name_shard, run_id)
WHERE begun.generation = %(generation)s AND run.status IS DISTINCT FROM 'completed'
ORDER BY run.status IS DISTINCT FROM 'failed', run.status IS NOT NULL,
    begun.workflow_name, begun.run_id
LIMIT %(limit)s"""


class Distribution(msgspec.Struct, frozen=True):
    """When the completed runs of a workflow were completed.

    Attributes:
        completed: how many they are.
        average_s: mean of the seconds from `created_at` to `updated_at`.
        took_s: the quantiles of these seconds, for the fractions asked for.
        completed_s: the same of the seconds since the generation began.
    """

    completed: int
    average_s: float
    took_s: list[float]
    completed_s: list[float]


class Trouble(msgspec.Struct, frozen=True):
    """A run that is not completed.

    Attributes:
        key: of the run.
        status: its status, or `missing`.
        error: the first line of its error.
    """

    key: str
    status: str
    error: str | None


class GenerationTables:
    """The tables of the harness, beside those of flows."""

    def __init__(self, connection: Connection, config: DBConfig) -> None:
        """Use a connection in autocommit, and the runs of a schema."""
        self._connection = connection
        self._schema = config.schema

    def create(self) -> None:
        """Create the tables that are missing."""
        with self._connection.transaction():
            # Without the lock IF NOT EXISTS fails where two generators start at once.
            self._connection.execute("SELECT pg_advisory_xact_lock(hashtext('stress_tables'))")
            for table in _TABLES:
                self._connection.execute(table)

    def forget_all(self) -> int:
        """Delete the runs of every earlier generation, and return how many there were."""
        with self._connection.transaction():
            deleted = self._connection.execute(self._query(_DELETE_RUNS)).rowcount
            self._connection.execute("TRUNCATE stress_generations, stress_runs")
        return deleted

    def note_generation(self, generation: uuid.UUID, settings: Any) -> None:
        """Note what is about to be begun."""
        self._connection.execute(
            "INSERT INTO stress_generations (generation, settings) VALUES (%s, %s::jsonb)",
            (generation, msgspec.json.encode(settings).decode()),
        )

    def note_runs(self, generation: uuid.UUID, workflow: str, keys: Sequence[RunKey]) -> None:
        """Note runs, in the transaction that begins them."""
        values = {
            "generation": generation,
            "workflow": workflow,
            "shards": [key.workflow_name_shard for key in keys],
            "run_ids": [key.run_id for key in keys],
        }
        self._connection.execute(_NOTE_RUNS, values)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all questions answered as of one moment."""
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def latest(self) -> uuid.UUID | None:
        """Return the generation that was begun last, None if there is none."""
        row = self._connection.execute(
            "SELECT generation FROM stress_generations ORDER BY begun_at DESC LIMIT 1"
        ).fetchone()
        return None if row is None else row[0]

    def settings(self, generation: uuid.UUID) -> bytes | None:
        """Return what was noted of a generation as JSON, None if there is none such."""
        row = self._connection.execute(
            "SELECT settings::text FROM stress_generations WHERE generation = %s", (generation,)
        ).fetchone()
        return None if row is None else row[0].encode()

    def count(self, generation: uuid.UUID) -> Counts:
        """Count the runs of a generation."""
        counts: Counts = {}
        rows = self._connection.execute(self._query(_COUNT), {"generation": generation})
        for workflow, status, count in rows:
            counts.setdefault(workflow, {})[status] = count
        return counts

    def distributions(
        self, generation: uuid.UUID, fractions: Sequence[float]
    ) -> dict[str, Distribution]:
        """Return when the completed runs were completed, by workflow; sorts all of them."""
        values = {"generation": generation, "fractions": list(fractions)}
        rows = self._connection.execute(self._query(_DISTRIBUTION), values)
        return {workflow: Distribution(*numbers) for workflow, *numbers in rows}

    def troubles(self, generation: uuid.UUID, limit: int) -> list[Trouble]:
        """Return runs that are not completed: first failed ones, then those that are gone."""
        values = {"generation": generation, "limit": limit}
        rows = self._connection.execute(self._query(_TROUBLES), values)
        return [
            Trouble(f"{shard}:{run_id}", status, error or None)
            for shard, run_id, status, error in rows
        ]

    def _query(self, text: str) -> bytes:
        return with_schema(text, self._schema).encode()
