"""Procrastinate, as its documentation runs it: asynchronous tasks, one worker process."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter

import procrastinate
import psycopg

DONE = "SELECT status = 'succeeded' FROM procrastinate_jobs WHERE id = %s"


def app_for(dsn: str) -> tuple[procrastinate.App, procrastinate.tasks.Task]:
    """Return an app with one task that does nothing."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="noop")
    async def noop(number: int) -> int:
        return number

    return app, noop


async def fill(dsn: str, runs: int) -> None:
    """Make the tables and queue so many jobs."""
    app, noop = app_for(dsn)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, runs, 1000):
            rows = range(start, min(runs, start + 1000))
            await noop.batch_defer_async(*({"number": number} for number in rows))


async def work(dsn: str, concurrency: int) -> None:
    """Work until killed."""
    app, _ = app_for(dsn)
    async with app.open_async():
        print("ready", flush=True)
        await app.run_worker_async(concurrency=concurrency)


async def latency(dsn: str, runs: int) -> None:
    """Queue one job after the other, and print how long each took."""
    app, noop = app_for(dsn)
    taken = []
    async with app.open_async():
        with psycopg.connect(dsn, autocommit=True) as connection:
            for number in range(runs):
                job = await noop.defer_async(number=number)
                began = perf_counter()
                while not connection.execute(DONE, (job,)).fetchone()[0]:
                    pass
                taken.append((perf_counter() - began) * 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    mode, dsn, count = sys.argv[1:4]
    asyncio.run({"fill": fill, "work": work, "latency": latency}[mode](dsn, int(count)))
