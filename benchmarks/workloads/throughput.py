"""W1, W2, W5 and W6: how fast runs are drained, alone and beside a history."""

from __future__ import annotations

from functools import partial

import psycopg

from benchmarks.arena import fresh_schema
from benchmarks.bench import Bench
from benchmarks.contenders import database, peer_per_s
from benchmarks.drain import drain
from benchmarks.pgbench import hundred_runs_per_transaction, one_transaction_per_run

__all__ = ["fill", "w1", "w2", "w5", "w6"]

# Ids of version 7 and times in the same order, as clients give them.
_RUNS = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
    output_json, next_wake_at, finished_at, created_at, updated_at)
SELECT 'noop_0', (
        lpad(to_hex(floor(1000 * extract(epoch FROM begun_at))::bigint), 12, '0')
        || '7' || lpad(to_hex(4 * mod(n, 1000)), 3, '0') || '8' || left(md5(random()::text), 15)
    )::uuid, 'noop', %(status)s, '1', '1',
    CASE WHEN %(status)s = 'sleeping' THEN now() + n * interval '1 second' + interval '1 day' END,
    CASE WHEN %(status)s = 'completed' THEN now() END, begun_at,
    CASE WHEN %(status)s = 'queued' THEN begun_at ELSE now() - interval '1 hour' END
FROM generate_series(1, %(count)s) AS n
CROSS JOIN LATERAL (SELECT now() - interval '1 day' + n * interval '1 microsecond') AS t (begun_at)
"""
_WAITS = """
INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, event_name)
SELECT workflow_name_shard, run_id, 'w/v1', 'event', 'Never'
FROM flows.runs WHERE status = 'waiting_event'
"""
_TENTHS = """
WITH ordered AS (
    SELECT finished_at, ntile(10) OVER (ORDER BY finished_at) AS tenth FROM flows.runs
)
SELECT count(*) / extract(epoch FROM max(finished_at) - min(finished_at))::float8
FROM ordered WHERE tenth IN (1, 10) GROUP BY tenth ORDER BY tenth
"""


def fill(dsn: str, counts: dict[str, int]) -> None:
    """Put other runs of the same shard into the tables, so many of each status."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for status, count in counts.items():
            connection.execute(_RUNS, {"status": status, "count": count})
        connection.execute(_WAITS)
        connection.execute("VACUUM ANALYZE flows.runs, flows.waits")
        # Such tables come over months: what filling them has left to write is not theirs.
        connection.execute("CHECKPOINT")


def w1(bench: Bench) -> None:
    """One no-op step, beside pgbench and the peers."""
    runs = bench.runs(30_000)
    for _ in range(bench.repetitions):
        for concurrency in (10, 1, 50):
            name = f"flows, concurrency {concurrency}"
            bench.measure("W1", name, partial(drain, bench.dsn, runs, concurrency))
        for clients in (1, 8):
            name = f"pgbench, {clients} clients"
            raw = partial(one_transaction_per_run, bench.dsn, clients, bench.runs(2000 * clients))
            bench.measure("W1", name, raw)
        name = "pgbench, 100 runs a transaction"
        bench.measure("W1", name, partial(hundred_runs_per_transaction, bench.dsn, runs))
        for peer in bench.peers:
            bench.measure("W1", peer, partial(_peer, bench, peer))


def _peer(bench: Bench, peer: str) -> float:
    with database(bench.dsn, peer) as dsn:
        return peer_per_s(peer, dsn, min(1.0, bench.scale * 2))


def w2(bench: Bench) -> None:
    """Five no-op steps, and one, in turn."""
    for _ in range(bench.repetitions):
        for name in ("noop", "five"):
            measured = partial(drain, bench.dsn, bench.runs(15_000), 10, workflows=(name,))
            bench.measure("W2", f"flows, {name}", measured)


def w5(bench: Bench) -> None:
    """One no-op step beside a long history."""
    runs = bench.runs(30_000)
    counts = {"completed": 1_000_000, "waiting_event": 100_000, "sleeping": 100_000}
    with database(bench.dsn, "history") as dsn:
        fresh_schema(dsn)
        fill(dsn, {status: bench.runs(count) for status, count in counts.items()})
        for _ in range(bench.repetitions):
            bench.measure("W5", "empty tables", partial(drain, bench.dsn, runs, 10))
            bench.measure("W5", "with history", partial(drain, dsn, runs, 10, fresh=False))


def w6(bench: Bench) -> None:
    """One no-op step while another session holds a snapshot: dead entries stay at the head."""
    with database(bench.dsn, "snapshot") as dsn, psycopg.connect(dsn) as holding:

        def hold(_dsn: str) -> None:
            holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holding.execute("SELECT 1")

        measured = partial(drain, dsn, bench.runs(500_000), 10, hold)
        bench.measure("W6", "flows, snapshot held", measured)
        with psycopg.connect(dsn) as connection:
            tenths = [float(row[0]) for row in connection.execute(_TENTHS)]
    if len(tenths) == 2:
        bench.figures.add("W6", "first tenth", tenths[0])
        bench.figures.add("W6", "last tenth", tenths[1])
