"""Absurd, as its documentation runs it: its schema by absurdctl, one worker with a thread pool."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import psycopg
from absurd_sdk import Absurd

DONE = "SELECT state = 'completed' FROM absurd.t_default WHERE task_id = %s"


def app_for(dsn: str) -> Absurd:
    """Return an app with one task of one step."""
    app = Absurd(dsn)

    @app.register_task("noop")
    def noop(params: dict[str, int], ctx: object) -> int:
        return ctx.step("nothing", lambda: params["number"])

    return app


def fill(dsn: str, runs: int) -> None:
    """Make the tables and queue so many tasks."""
    command = str(Path(sys.executable).with_name("absurdctl"))
    subprocess.run([command, "init", "--database", dsn], check=True)
    subprocess.run([command, "create-queue", "default", "--database", dsn], check=True)
    app = app_for(dsn)
    for number in range(runs):
        app.spawn("noop", {"number": number})


def work(dsn: str, concurrency: int) -> None:
    """Work until killed, looking every 5 ms."""
    app_for(dsn).start_worker(concurrency=concurrency, poll_interval=0.005)


def latency(dsn: str, runs: int) -> None:
    """Queue one task after the other, and print how long each took."""
    app = app_for(dsn)
    taken = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(runs):
            task = app.spawn("noop", {"number": number})["task_id"]
            began = perf_counter()
            while not connection.execute(DONE, (task,)).fetchone()[0]:
                pass
            taken.append((perf_counter() - began) * 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    mode, dsn, count = sys.argv[1:4]
    {"fill": fill, "work": work, "latency": latency}[mode](dsn, int(count))
