"""W7 and W8: business rows in the run's transaction, and enqueueing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import psycopg

import flows
from benchmarks.arena import fresh_schema, worker_process
from benchmarks.bench import Bench
from benchmarks.drain import WORKER, drain
from benchmarks.pgbench import LEDGER, one_transaction_per_run
from flows.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["begin_for", "w7", "w8"]

INSERT = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
VALUES ('noop_0', gen_random_uuid(), 'noop', 'queued', '1')
"""
TURNS = 3
"""How often W8 is repeated in a repetition."""

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


@contextlib.contextmanager
def _clients(dsn: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Run client processes; all are there before any begins, so that none has the cores alone."""
    command = [sys.executable, "-m", "benchmarks.workloads.writing", dsn]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]
        _begin(running, "bare", 0)
        yield running


def _begin(clients: list[subprocess.Popen[str]], how: str, seconds: float) -> float:
    """Have all clients begin runs at the same time; return how many a second they all began."""
    for each in clients:
        assert each.stdin is not None
        print(how, seconds, sep=",", file=each.stdin, flush=True)
    answers = [each.stdout.readline() for each in clients if each.stdout is not None]
    return sum(map(float, answers))


def _beside(dsn: str, clients: list[subprocess.Popen[str]], how: str, seconds: float) -> float:
    """Begin runs beside a worker that executes them."""
    fresh_schema(dsn)
    with worker_process(WORKER, dsn, "noop"):
        return _begin(clients, how, seconds)


def w8(bench: Bench) -> None:
    """Enqueue, one at a time, fifty and ten thousand in a transaction."""
    seconds = max(0.3, bench.scale)
    for count in (1, 16):
        with _clients(bench.dsn, count) as clients:
            # Many short turns: what is compared is measured in the same seconds.
            for _ in range(TURNS * bench.repetitions):
                fresh_schema(bench.dsn)
                for how in ("bare", "one", "one quiet", "fifty", "bulk"):
                    measured = partial(_begin, clients, how, seconds)
                    bench.measure("W8", f"{how}, {count} clients", measured)
                for how in ("one", "one quiet"):
                    measured = partial(_beside, bench.dsn, clients, how, seconds)
                    bench.measure("W8", f"{how}, {count} clients beside a worker", measured)


if __name__ == "__main__":
    for line in sys.stdin:
        told, seconds = line.split(",")
        print(begin_for(sys.argv[1], told, float(seconds)), flush=True)
