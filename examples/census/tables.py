"""The business tables of a census, written in the same transactions as the engine's records.

All writes happen in steps, so each is committed with its step's memo or not at all, and once.
None of them says ON CONFLICT: a row written twice would be a defect, and should be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol
from uuid import UUID

import psycopg

from .functions import FileMeasure
from .similarity import Fingerprint, Link, Part

__all__ = [
    "Transaction",
    "create_tables",
    "drop_fingerprints",
    "fingerprint_sizes",
    "fingerprints",
    "finish_task",
    "insert_links",
    "insert_measure",
    "open_stage",
]


class Transaction(Protocol):
    """What these functions need of `wf.tx`."""

    def execute(self, query: Any, params: Any = None, /) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run one statement."""
        ...


# Texts sort by code point whatever the database's collation: a result does not depend on it.
_TABLES = (
    """
CREATE TABLE IF NOT EXISTS census_stages (
    census_id uuid NOT NULL,
    stage text NOT NULL,
    tasks_left integer NOT NULL CHECK (tasks_left >= 0),
    PRIMARY KEY (census_id, stage)
)""",
    """
CREATE TABLE IF NOT EXISTS census_files (
    census_id uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    code_lines integer NOT NULL,
    error text,
    PRIMARY KEY (census_id, path)
)""",
    """
CREATE TABLE IF NOT EXISTS census_functions (
    census_id uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    line integer NOT NULL,
    name text NOT NULL,
    lines integer NOT NULL,
    complexity integer NOT NULL,
    PRIMARY KEY (census_id, path, line)
)""",
    """
CREATE TABLE IF NOT EXISTS census_fingerprints (
    census_id uuid NOT NULL,
    size integer NOT NULL,
    path text COLLATE "C" NOT NULL,
    line integer NOT NULL,
    shingles bytea NOT NULL,
    PRIMARY KEY (census_id, size, path, line)
)""",
    """
CREATE TABLE IF NOT EXISTS census_links (
    census_id uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    line integer NOT NULL,
    other_path text COLLATE "C" NOT NULL,
    other_line integer NOT NULL,
    similarity double precision NOT NULL,
    PRIMARY KEY (census_id, path, line, other_path, other_line)
)""",
)


def create_tables(tx: Transaction) -> None:
    """Create the tables that are missing."""
    # Two first censuses at once: without the lock, IF NOT EXISTS of one of them fails on the
    # catalog's unique index instead of finding the other's table.
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('census_tables'))")
    for table in _TABLES:
        tx.execute(table)


_FINISH_TASK = """
UPDATE census_stages SET tasks_left = tasks_left - 1 WHERE census_id = %s AND stage = %s
RETURNING tasks_left"""


def open_stage(tx: Transaction, census_id: UUID, stage: str, tasks: int) -> None:
    """Note that a stage has so many tasks."""
    tx.execute("INSERT INTO census_stages VALUES (%s, %s, %s)", (census_id, stage, tasks))


def finish_task(tx: Transaction, census_id: UUID, stage: str) -> int:
    """Cross one task off and return how many are left.

    Locks the stage's row until the transaction ends: see `workflows.report_task`.
    """
    row = tx.execute(_FINISH_TASK, (census_id, stage)).fetchone()
    if row is None:
        raise LookupError(f"census {census_id} has no stage {stage!r}")
    return int(row[0])


_INSERT_FILE = """
INSERT INTO census_files (census_id, path, code_lines, error) VALUES (%s, %s, %s, %s)"""

_INSERT_FUNCTIONS = """
INSERT INTO census_functions (census_id, path, line, name, lines, complexity)
SELECT %(census)s, %(path)s, *
FROM unnest(%(line)s::int[], %(names)s::text[], %(lines)s::int[], %(complexity)s::int[])"""

_INSERT_FINGERPRINTS = """
INSERT INTO census_fingerprints (census_id, size, path, line, shingles)
SELECT %(census)s, length(shingles) / 8, %(path)s, line, shingles
FROM unnest(%(line)s::int[], %(shingles)s::bytea[]) AS function (line, shingles)"""


def insert_measure(tx: Transaction, census_id: UUID, measure: FileMeasure) -> None:
    """Write what was measured of a file: itself, its functions, their fingerprints."""
    tx.execute(_INSERT_FILE, (census_id, measure.path, measure.code_lines, measure.error))
    functions = {
        "census": census_id,
        "path": measure.path,
        "line": [function.line for function in measure.functions],
        "names": [function.name for function in measure.functions],
        "lines": [function.lines for function in measure.functions],
        "complexity": [function.complexity for function in measure.functions],
    }
    tx.execute(_INSERT_FUNCTIONS, functions)
    comparable = [function for function in measure.functions if function.shingles]
    fingerprints = {
        "census": census_id,
        "path": measure.path,
        "line": [function.line for function in comparable],
        "shingles": [function.shingles for function in comparable],
    }
    tx.execute(_INSERT_FINGERPRINTS, fingerprints)


def fingerprint_sizes(tx: Transaction, census_id: UUID) -> list[int]:
    """Return the sizes of all fingerprints of a census."""
    rows = tx.execute("SELECT size FROM census_fingerprints WHERE census_id = %s", (census_id,))
    return [size for (size,) in rows]


_FINGERPRINTS = """
SELECT path, line, shingles FROM census_fingerprints
WHERE census_id = %s AND size BETWEEN %s AND %s"""


def fingerprints(tx: Transaction, census_id: UUID, part: Part) -> list[Fingerprint]:
    """Return the fingerprints that a part of the comparison needs."""
    rows = tx.execute(_FINGERPRINTS, (census_id, part.smallest, part.high))
    return [Fingerprint((path, line), shingles) for path, line, shingles in rows]


def drop_fingerprints(tx: Transaction, census_id: UUID) -> None:
    """Delete the fingerprints of a census, its bulkiest rows, once they have served."""
    tx.execute("DELETE FROM census_fingerprints WHERE census_id = %s", (census_id,))


_INSERT_LINKS = """
INSERT INTO census_links (census_id, path, line, other_path, other_line, similarity)
SELECT %(census)s, *
FROM unnest(%(paths)s::text[], %(lines)s::int[], %(other_paths)s::text[], %(other_lines)s::int[],
            %(similarities)s::float8[])"""


def insert_links(tx: Transaction, census_id: UUID, links: Iterable[Link]) -> None:
    """Write pairs of near-duplicates."""
    rows = list(links)
    values = {
        "census": census_id,
        "paths": [link.first[0] for link in rows],
        "lines": [link.first[1] for link in rows],
        "other_paths": [link.second[0] for link in rows],
        "other_lines": [link.second[1] for link in rows],
        "similarities": [link.similarity for link in rows],
    }
    tx.execute(_INSERT_LINKS, values)
