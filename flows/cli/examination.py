"""What `flows doctor` reads of a database, and the findings from it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from flows import sql
from flows.cli import diagnosis
from flows.cli.diagnosis import Due, Finding
from flows.clock import unix_ms
from flows.database import is_pooled
from flows.embedded.database import LISTEN_VARIABLE
from flows.errors import SchemaError
from flows.schema import SCHEMA_VERSION, check_version
from flows.shard import shard_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["examine", "expected_indexes"]

_CREATED = re.compile(r"CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?(\w+)")
_DROPPED = re.compile(r"DROP INDEX (?:IF EXISTS )?(?:flows\.)?(\w+)")
_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?flows\.(\w+)")


def examine(connection: Connection, config: DBConfig, shard_count: int | None) -> list[Finding]:
    """Return what every check finds; of the tables only where they are of this version."""
    findings = [*_server(connection, config)]
    try:
        check_version(connection, config)
    except SchemaError as error:
        told, _, remedy = str(error).partition("; ")
        return [Finding("schema", "error", told, remedy or None), *findings]
    told = f"the tables are of version {SCHEMA_VERSION}"
    return [
        Finding("schema", "ok", told),
        *findings,
        *_tables(connection, config),
        *_runs(connection, config, shard_count),
    ]


def expected_indexes() -> set[str]:
    """Return the indexes that the migrations make."""
    found: set[str] = set()
    for _, text in sql.migration_files():
        found |= {*_CREATED.findall(text), *(f"{name}_pkey" for name in _TABLE.findall(text))}
        found -= set(_DROPPED.findall(text))
    return found


def _server(connection: Connection, config: DBConfig) -> Iterator[Finding]:
    before_s = unix_ms() / 1000
    ((now_s, allowed, connected, *idle),) = _rows(connection, config, "examine_server")
    yield diagnosis.judge_clock((before_s + unix_ms() / 1000) / 2 - now_s)
    yield diagnosis.judge_connections(connected, allowed)
    yield diagnosis.judge_idle(*idle)
    yield diagnosis.judge_pooler(
        is_pooled=is_pooled(connection), has_listen_dsn=bool(os.environ.get(LISTEN_VARIABLE))
    )


def _tables(connection: Connection, config: DBConfig) -> Iterator[Finding]:
    where = {"schema": config.schema}
    present = dict(_rows(connection, config, "examine_indexes", **where))
    yield from diagnosis.judge_indexes(expected_indexes(), present)
    tables = _rows(connection, config, "examine_tables", **where)
    yield from diagnosis.judge_tables((name, live, dead) for name, live, dead in tables)


def _runs(connection: Connection, config: DBConfig, shard_count: int | None) -> Iterator[Finding]:
    shards = [shard for shard in _unfinished(connection, config) if shard_index(shard) is not None]
    yield from diagnosis.judge_queues(_due(connection, config, shards))
    ((stuck,),) = _rows(connection, config, "count_stuck_runs")
    yield diagnosis.judge_stuck(stuck)
    if shard_count is not None:
        yield diagnosis.judge_shards(shards, shard_count)
    ((broken,),) = _rows(connection, config, "count_broken_schedules")
    late = dict(_rows(connection, config, "peek_schedules"))
    yield from diagnosis.judge_schedules(broken, _attended(connection, config, late))


def _due(connection: Connection, config: DBConfig, shards: Sequence[str]) -> Iterator[Due]:
    late: dict[str, float] = {}
    for shard in shards:
        for (in_s,) in _rows(connection, config, "peek_queue", shard=shard, now=None):
            name = shard.rpartition("_")[0]
            late[name] = max(late.get(name, 0.0), -in_s)
    yield from _attended(connection, config, late)


def _attended(connection: Connection, config: DBConfig, late: dict[str, float]) -> Iterator[Due]:
    """Yield what is due of workflows, with how many workers are there for it."""
    for name, late_s in late.items():
        ((live,),) = _rows(connection, config, "count_live_workers", workflow_name=name)
        yield Due(name, late_s, live)


def _unfinished(connection: Connection, config: DBConfig) -> Iterator[str]:
    after = ""
    while True:
        ((after,),) = _rows(connection, config, "read_unfinished_shard", after=after)
        if after is None:
            return
        yield after


def _rows(
    connection: Connection, config: DBConfig, query: str, **values: Any
) -> Sequence[tuple[Any, ...]]:
    return connection.execute(sql.load(query, config.schema), values).fetchall()
