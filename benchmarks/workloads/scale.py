"""W11 and W12: codecs, and what a run costs as things grow."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import psycopg

import flows
from benchmarks.arena import fresh_schema, worker_process
from benchmarks.bench import Bench
from benchmarks.contenders import database
from benchmarks.drain import WORKER, drain
from benchmarks.workloads.throughput import fill
from flows.clock import StopSignal, monotonic

__all__ = ["w11", "w12"]

TURNS = 5
"""How often W11 is repeated in a repetition: a round trip of 100 bytes is short."""

BACKLOGS = (1000, 10_000, 100_000, 1_000_000, 10_000_000)
BESIDE_BACKLOG_S = 5.0
_MISSING = "SELECT %s - count(*) FROM flows.runs WHERE status = 'queued'"
_USED = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'flows %'"
_COMPLETED_PER_S = """
SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at))::float8
FROM flows.runs WHERE finished_at IS NOT NULL AND started_at >= %s
"""
_WRITTEN = """
SELECT (pg_current_wal_insert_lsn() - '0/0')::float8, (
    SELECT sum(n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables WHERE schemaname = 'flows')
"""


def w11(bench: Bench) -> None:
    """Encode, store, load and decode."""
    for _ in range(TURNS * bench.repetitions):
        for label, items in (("100 B", 2), ("10 kB", 180), ("1 MB", 18_000)):
            value = [{"id": n, "name": f"item {n}", "price": n + 0.5} for n in range(items)]
            for codec in (flows.JSONCodec(), flows.OrjsonCodec(), flows.MsgspecCodec()):
                times = 200 if items < 1000 else 5
                measured = partial(_trip_ms, bench.dsn, codec, value, times)
                bench.measure("W11", f"{codec.name}, {label}", measured, "ms")


def _trip_ms(dsn: str, codec: flows.Codec, value: Any, times: int) -> float:
    kind = codec.storage
    text = kind == "jsonb"
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(f"CREATE TEMP TABLE trip (id int, payload {kind})".encode())
        began_s = monotonic()
        for number in range(times):
            data = codec.encode(value)
            stored: Any = data.decode() if text else data
            connection.execute("INSERT INTO trip VALUES (%s, %s)", (number, stored))
            loaded = "payload::text" if text else "payload"
            query = f"SELECT {loaded} FROM trip WHERE id = %s".encode()
            row = connection.execute(query, (number,)).fetchone()
            assert row is not None
            codec.decode(row[0].encode() if text else bytes(row[0]), Any)
        return (monotonic() - began_s) * 1000 / times


def w12(bench: Bench) -> None:
    """Cost against backlog, shards, workers and workflows; what a run writes; connections."""
    with contextlib.ExitStack() as stack:
        backlogs = [each for each in BACKLOGS if each <= BACKLOGS[-1] * bench.scale]
        names = {each: f"backlog_{each}" for each in backlogs}
        dsns = {each: stack.enter_context(database(bench.dsn, names[each])) for each in backlogs}
        for dsn in dsns.values():
            fresh_schema(dsn)
        for _ in range(bench.repetitions):
            for backlog, dsn in dsns.items():
                measured = partial(_beside_backlog, bench, dsn, backlog)
                bench.measure("W12", f"backlog {backlog:,}", measured)
    for _ in range(bench.repetitions):
        for shards in (1, 8, 32):
            measured = partial(drain, bench.dsn, bench.runs(20_000), 10, shards=shards)
            bench.measure("W12", f"{shards} shards", measured)
        for processes in (1, 2, 4):
            measured = partial(drain, bench.dsn, bench.runs(20_000), 10, processes=processes)
            bench.measure("W12", f"{processes} workers", measured)
        measured = partial(drain, bench.dsn, bench.runs(10_000), 10, workflows=("noop", "five"))
        bench.measure("W12", "2 workflows, a worker each", measured)
    _written(bench)


def _beside_backlog(bench: Bench, dsn: str, backlog: int) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        fill(dsn, {"queued": _number(connection, _MISSING, backlog)})
        began = connection.execute("SELECT clock_timestamp()").fetchone()
        assert began is not None
        with worker_process(WORKER, dsn, "noop", "10"):
            # Nobody looks meanwhile: to count the completed takes a walk over all runs.
            StopSignal().wait(BESIDE_BACKLOG_S)
            used = _number(connection, _USED)
        bench.measure("W12", "connections of a worker", partial(float, used), "connections")
        return float(_number(connection, _COMPLETED_PER_S, *began))


def _number(connection: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = connection.execute(query.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def _written(bench: Bench) -> None:
    runs = bench.runs(20_000)
    fresh_schema(bench.dsn)
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        before = connection.execute(_WRITTEN).fetchone()
        drain(bench.dsn, runs, 10, fresh=False)
        StopSignal().wait(2.0)  # sessions tell of their rows once a second
        after = connection.execute(_WRITTEN).fetchone()
    assert before is not None
    assert after is not None
    bench.figures.add("W12", "WAL, begin included", (after[0] - before[0]) / runs, "bytes/run")
    bench.figures.add("W12", "dead rows", (after[1] - before[1]) / runs, "rows/run")
