"""PgQueuer, as its documentation runs it: asynchronous jobs by asyncpg, taken in batches."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from time import perf_counter

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

LEFT = "SELECT count(*) FROM pgqueuer"


async def fill(dsn: str, runs: int) -> None:
    """Make the tables and queue so many jobs."""
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    for start in range(0, runs, 1000):
        size = min(1000, runs - start)
        await queries.enqueue(["noop"] * size, [b"1"] * size, [0] * size)
    await connection.close()


async def work(dsn: str, batch: int) -> None:
    """Work until killed."""
    connection = await asyncpg.connect(dsn)
    queuer = PgQueuer(AsyncpgDriver(connection))

    @queuer.entrypoint("noop")
    async def noop(job: object) -> None:
        pass

    print("ready", flush=True)
    await queuer.run(batch_size=batch, dequeue_timeout=timedelta(seconds=1))


async def latency(dsn: str, runs: int) -> None:
    """Queue one job after the other, and print how long each took."""
    connection = await asyncpg.connect(dsn)
    queries = Queries(AsyncpgDriver(connection))
    taken = []
    for _ in range(runs):
        await queries.enqueue("noop", b"1", 0)
        began = perf_counter()
        while await connection.fetchval(LEFT):
            pass
        taken.append((perf_counter() - began) * 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    mode, dsn, count = sys.argv[1:4]
    asyncio.run({"fill": fill, "work": work, "latency": latency}[mode](dsn, int(count)))
