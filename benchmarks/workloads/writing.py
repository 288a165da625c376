"""W7 and W8: business rows in the run's transaction, and enqueueing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import partial

import psycopg

import flows
from benchmarks.arena import fresh_schema, worker_process
from benchmarks.bench import Bench
from benchmarks.drain import WORKER, drain
from benchmarks.pgbench import LEDGER, one_transaction_per_run
from flows.clock import monotonic

__all__ = ["begin_for", "w7", "w8"]

INSERT = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
VALUES ('noop_0', gen_random_uuid(), 'noop', 'queued', '1')
"""
_TABLE = "CREATE TABLE IF NOT EXISTS public.ledger (id bigserial PRIMARY KEY, amount int)"


def w7(bench: Bench) -> None:
    """One business row through wf.tx for each run, beside pgbench doing the same."""
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        connection.execute(_TABLE)
    for _ in range(bench.repetitions):
        raw = partial(one_transaction_per_run, bench.dsn, 20, bench.runs(15_000), LEDGER)
        bench.measure("W7", "pgbench, 20 clients", raw)
        for concurrency in (20, 8):
            ours = partial(drain, bench.dsn, bench.runs(8000), concurrency, workflows=("book",))
            bench.measure("W7", f"flows, concurrency {concurrency}", ours)


def begin_for(dsn: str, how: str, seconds: float) -> float:
    """Begin runs for so long with one client and return how many a second.

    Args:
        dsn: the database.
        how: `bare`, `one`, `one quiet`, `fifty` or `bulk`.
        seconds: how long.
    """
    client, begun = flows.Client(disable_notify=how.endswith("quiet")), 0
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        began_s = monotonic()
        while monotonic() - began_s < seconds:
            if how == "bare":
                connection.execute(INSERT)
                begun += 1
            elif how == "fifty":
                with connection.transaction():
                    for number in range(50):
                        client.begin_tx(connection, "noop", number)
                begun += 50
            elif how == "bulk":
                client.begin_many_tx(connection, "noop", range(10_000))
                begun += 10_000
            else:
                client.begin_tx(connection, "noop", begun)
                begun += 1
        return begun / (monotonic() - began_s)


def _many_clients(dsn: str, how: str, seconds: float, clients: int, *, heard: bool) -> float:
    fresh_schema(dsn)
    with worker_process(WORKER, dsn, "noop") if heard else contextlib.nullcontext():
        if clients == 1:
            return begin_for(dsn, how, seconds)
        command = [sys.executable, "-m", "benchmarks.workloads.writing", dsn, how, str(seconds)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)
        ]
        return sum(float(each.communicate(timeout=120)[0]) for each in running)


def w8(bench: Bench) -> None:
    """Enqueue, one at a time, fifty and ten thousand in a transaction."""
    seconds = max(1.0, 3.0 * bench.scale)
    for _ in range(bench.repetitions):
        for clients in (1, 16):
            for how in ("bare", "one", "one quiet", "fifty", "bulk"):
                measured = partial(_many_clients, bench.dsn, how, seconds, clients, heard=False)
                bench.measure("W8", f"{how}, {clients} clients", measured)
            for how in ("one", "one quiet"):
                measured = partial(_many_clients, bench.dsn, how, seconds, clients, heard=True)
                bench.measure("W8", f"{how}, {clients} clients beside a worker", measured)


if __name__ == "__main__":
    print(begin_for(sys.argv[1], sys.argv[2], float(sys.argv[3])))
