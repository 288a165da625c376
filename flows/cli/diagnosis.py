"""What is wrong with a database of flows, judged from what was read of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from flows.cli.quantities import duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = [
    "Due",
    "Finding",
    "judge_clock",
    "judge_connections",
    "judge_idle",
    "judge_indexes",
    "judge_pooler",
    "judge_queues",
    "judge_schedules",
    "judge_shards",
    "judge_stuck",
    "judge_tables",
    "verdict",
]

Level = Literal["ok", "warning", "error"]

_LEVELS: tuple[Level, ...] = ("ok", "warning", "error")
_LATE_S = 60.0


class Finding(msgspec.Struct, frozen=True):
    """What one check found, and what to do about it; no remedy where all is well."""

    check: str
    level: Level
    told: str
    remedy: str | None = None


class Due(msgspec.Struct, frozen=True):
    """A workflow with runs, or schedules, that are due: for how long the first, and for whom."""

    workflow: str
    late_s: float
    live_workers: int


def verdict(findings: Iterable[Finding]) -> Level:
    """Return the worst level."""
    worst: Level = "ok"
    for finding in findings:
        if _LEVELS.index(finding.level) > _LEVELS.index(worst):
            worst = finding.level
    return worst


def judge_clock(ahead_s: float) -> Finding:
    """Judge by how much this host's clock is ahead of the server's."""
    side = "ahead of" if ahead_s > 0 else "behind"
    told = f"this host's clock is {duration(abs(ahead_s))} {side} the server's"
    remedy = "synchronize the clocks by NTP: ids of runs that are begun here are out of order"
    return _measured("clock", abs(ahead_s), (2.0, 60.0), told, remedy)


def judge_connections(connected: int, allowed: int) -> Finding:
    """Judge how many connections are left."""
    told = f"{connected} of {allowed} connections are in use"
    remedy = "raise max_connections, run fewer processes, or put PgBouncer in between"
    return _measured("connections", connected / max(1, allowed), (0.8, 0.95), told, remedy)


def judge_idle(age_s: float | None, pid: int | None, application: str | None) -> Finding:
    """Judge the longest open transaction that does nothing: nothing dead is removed meanwhile."""
    if age_s is None:
        return Finding("transactions", "ok", "no session idles in a transaction")
    told = (
        f"process {pid} ({application or 'unnamed'}) idles in a transaction for {duration(age_s)}"
    )
    remedy = f"end that program, or: SELECT pg_terminate_backend({pid})"
    return _measured("transactions", age_s, (60.0, 900.0), told, remedy)


def judge_indexes(expected: Collection[str], present: Mapping[str, bool]) -> Iterator[Finding]:
    """Judge whether every index is there and valid."""
    missing = sorted(name for name in expected if name not in present)
    invalid = sorted(name for name, is_valid in present.items() if not is_valid)
    if missing:
        yield Finding(
            "indexes",
            "error",
            f"missing: {', '.join(missing)}",
            "create them as flows migrate --print shows them, with CREATE INDEX CONCURRENTLY",
        )
    if invalid:
        yield Finding(
            "indexes",
            "error",
            f"invalid: {', '.join(invalid)}",
            f"REINDEX INDEX CONCURRENTLY {invalid[0]}",
        )
    if not missing and not invalid:
        yield Finding("indexes", "ok", f"all {len(expected)} indexes are there and valid")


def judge_tables(tables: Iterable[tuple[str, int, int]]) -> Iterator[Finding]:
    """Judge the dead rows of the tables, of each its name, live rows and dead ones."""
    is_well = True
    for name, live, dead in tables:
        if dead < 10_000 or dead < live / 2:
            continue
        is_well = False
        level: Level = "error" if dead >= 100_000 and dead > 2 * live else "warning"
        told = f"table {name} has {dead} dead rows beside {live} live ones"
        remedy = f"VACUUM (ANALYZE) {name}; then see why autovacuum does not keep up"
        yield Finding("bloat", level, told, remedy)
    if is_well:
        yield Finding("bloat", "ok", "no table has many dead rows")


def judge_pooler(*, is_pooled: bool, has_listen_dsn: bool) -> Finding:
    """Judge how workers are told of new runs."""
    if not is_pooled:
        return Finding("pooler", "ok", "the connection is direct")
    if has_listen_dsn:
        return Finding("pooler", "ok", "through a pooler; FLOWS_LISTEN_URL leads past it")
    return Finding(
        "pooler",
        "warning",
        "through a pooler, past which nothing leads: workers find runs by polling",
        "set FLOWS_LISTEN_URL or give --listen-dsn to workers and supervisors",
    )


def judge_queues(due: Iterable[Due]) -> Iterator[Finding]:
    """Judge whether somebody is there for the runs that are due."""
    is_well = True
    for each in due:
        if each.late_s < _LATE_S:
            continue
        late = f"workflow {each.workflow!r} has runs that are due for {duration(each.late_s)}"
        if each.live_workers == 0:
            is_well = False
            remedy = "start one; in flows status its workflow may be broken"
            yield Finding("workers", "error", f"{late}, and no live worker", remedy)
        elif each.late_s >= 10 * _LATE_S:
            is_well = False
            told = f"{late}, with {each.live_workers} live workers"
            remedy = f"flows scale {each.workflow} COUNT, or see flows stacks what they do"
            yield Finding("workers", "warning", told, remedy)
    if is_well:
        yield Finding("workers", "ok", "no run is due that nobody takes")


def judge_stuck(count: int) -> Finding:
    """Judge the running runs whose worker is gone."""
    if count == 0:
        return Finding("stuck runs", "ok", "every running run has a live worker")
    return Finding(
        "stuck runs",
        "error",
        f"{count} running runs have no live worker, and nobody gives them back to the queue",
        "start a supervisor or a worker of any workflow: it gives them back within seconds",
    )


def judge_shards(shards: Iterable[str], count: int) -> Finding:
    """Judge whether unfinished runs are in shards beyond the configured count."""
    beyond = sorted(shard for shard in shards if int("0" + shard.rpartition("_")[2]) >= count)
    if not beyond:
        return Finding("shards", "ok", f"no unfinished run is beyond {count} shards")
    most = max(int(shard.rpartition("_")[2]) for shard in beyond)
    return Finding(
        "shards",
        "error",
        f"unfinished runs are in {', '.join(beyond[:5])}, which nobody reads with --shards {count}",
        f"start with --shards {most + 1}, or more if there were more, until they are finished",
    )


def judge_schedules(broken: int, due: Iterable[Due]) -> Iterator[Finding]:
    """Judge the schedules that cannot be fired, and those that nobody fires."""
    is_well = broken == 0
    if broken:
        told = f"{broken} schedule{'' if broken == 1 else 's'} cannot be fired"
        yield Finding("schedules", "warning", told, "flows schedules list says why")
    for each in due:
        if each.late_s < (_LATE_S if each.live_workers == 0 else 10 * _LATE_S):
            continue
        is_well = False
        late = f"workflow {each.workflow!r} has a schedule that is due for {duration(each.late_s)}"
        if each.live_workers == 0:
            remedy = "start one, or flows schedules pause NAME; flows schedules list has the names"
            yield Finding("schedules", "error", f"{late}, and no live worker", remedy)
        else:
            told = f"{late}, with {each.live_workers} live workers"
            remedy = "see their logs, and what maintenance does in flows status"
            yield Finding("schedules", "warning", told, remedy)
    if is_well:
        yield Finding("schedules", "ok", "every schedule can be fired, and none is late")


def _measured(
    check: str, value: float, limits: tuple[float, float], told: str, remedy: str
) -> Finding:
    warning, error = limits
    if value < warning:
        return Finding(check, "ok", told)
    return Finding(check, "error" if value >= error else "warning", told, remedy)
