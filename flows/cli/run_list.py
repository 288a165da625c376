"""Pages of runs: read shard by shard, in one order over all of them."""

from __future__ import annotations

import heapq
import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg.rows import kwargs_row

from flows import sql
from flows.cli.plain import printable, shortened
from flows.cli.quantities import duration
from flows.ids import RunID, RunKey

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from flows.cli.run_filter import RunFilter
    from flows.database import Connection

__all__ = [
    "Listed",
    "Page",
    "Shard",
    "all_shards",
    "count_runs",
    "list_shard",
    "read_page",
    "shards",
    "table",
]

_ERROR_WIDTH = 100


class Listed(msgspec.Struct, frozen=True):
    """A run in a list.

    Attributes:
        run_key: what it is asked for by.
        attempts: how many attempts have failed.
        error: the first line of its error.
        priority: from 0 to 9.
    """

    run_key: str
    workflow_name: str
    status: str
    attempts: int
    crashes: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    tags: list[str]
    error: str | None
    priority: int = 0


class Page(msgspec.Struct, frozen=True):
    """A page of runs. What `flows runs list --json` prints has these names.

    Attributes:
        runs: the last begun first.
        next: the key to give to `--after` for the next page, None where this is the last.
        read_at: the database's time.
    """

    runs: list[Listed]
    next: str | None
    read_at: datetime


class Shard(msgspec.Struct, frozen=True):
    """A shard that may have chosen runs, and between which ids."""

    name: str
    least: Any
    greatest: Any


def all_shards(connection: Connection, schema: str) -> Iterator[str]:
    """Yield the names of the shards that have runs."""
    following = sql.load("read_next_shard", schema)
    after = ""
    while (row := connection.execute(following, {"after": after}).fetchone()) and row[0]:
        after = row[0]
        yield after


def shards(connection: Connection, schema: str, chosen: RunFilter) -> Iterator[Shard]:
    """Yield the shards in which chosen runs may be."""
    last = sql.load("read_last_run", schema)
    for name in filter(chosen.has_shard, all_shards(connection, schema)):
        end = connection.execute(last, {"shard": name}).fetchone()
        if end is not None:
            yield Shard(name, *chosen.bounds(*end))


def read_page(
    connection: Connection, schema: str, chosen: RunFilter, limit: int, after: RunKey | None
) -> Page:
    """Read the first runs that are chosen, after one of them or from the beginning."""
    now = connection.execute(sql.load("read_time", schema), {"now": None}).fetchone()
    assert now is not None
    found = [
        list_shard(connection, schema, chosen, shard, limit + 1, after)
        for shard in shards(connection, schema, chosen)
    ]
    merged = heapq.merge(*found, key=_place)
    runs = list(itertools.islice(merged, limit + 1))
    following = runs[limit - 1].run_key if len(runs) > limit else None
    return Page(runs[:limit], following, now[0])


def list_shard(
    connection: Connection,
    schema: str,
    chosen: RunFilter,
    shard: Shard,
    limit: int,
    after: RunKey | None = None,
) -> list[Listed]:
    """Read the first chosen runs of one shard."""

    def listed(run_id: uuid.UUID, **columns: Any) -> Listed:
        return Listed(str(RunKey(shard.name, RunID(run_id))), **columns)

    values = chosen.values() | chosen.before(shard.name, after)
    values |= {"shard": shard.name, "least": shard.least, "limit": limit}
    values["greatest"] = min(values["greatest"], shard.greatest)
    with connection.cursor(row_factory=kwargs_row(listed)) as cursor:
        # Never prepared: the plan that is right depends on the filter.
        query = sql.load("list_runs", schema)
        return cursor.execute(query, values, prepare=False).fetchall()


def count_runs(connection: Connection, schema: str, chosen: RunFilter, shard: Shard) -> int:
    """Count the chosen runs of one shard."""
    values = chosen.values() | {
        "shard": shard.name,
        "least": shard.least,
        "greatest": shard.greatest,
    }
    query = sql.load("count_runs", schema)
    row = connection.execute(query, values, prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def table(page: Page) -> str:
    """Return a page as lines: key, status, how long ago it was begun, failed attempts, error."""
    lines = [("run", "status", "begun", "failures", "error")]
    for run in page.runs:
        ago = duration((page.read_at - run.created_at).total_seconds())
        error = shortened(printable(run.error or ""), _ERROR_WIDTH)
        key = printable(run.run_key)
        lines.append((key, printable(run.status), f"{ago} ago", str(run.attempts), error))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "".join(f"{_aligned(line, widths)}\n" for line in lines)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    key, status, ago, failures, error = line
    run, state, age, count = widths
    return f"{key:<{run}}  {status:<{state}}  {ago:>{age}}  {failures:>{count}}  {error}".rstrip()


def _place(run: Listed) -> tuple[int, str]:
    shard, run_id = RunKey.parse(run.run_key)
    return -run_id.int, shard
