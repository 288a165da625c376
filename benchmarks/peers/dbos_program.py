"""DBOS Transact, as its documentation runs it: a queue of durable workflows with one step."""

from __future__ import annotations

import json
import sys
import threading
from time import perf_counter

import psycopg
from dbos import DBOS, DBOSClient

DONE = "SELECT status = 'SUCCESS' FROM dbos.workflow_status WHERE workflow_uuid = %s"


@DBOS.step()
def nothing(number: int) -> int:
    """Do nothing, as a step."""
    return number


@DBOS.workflow()
def noop(number: int) -> int:
    """Do one step."""
    return nothing(number)


def launch(dsn: str, concurrency: int) -> None:
    """Make the tables and work on the queue."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": dsn,
            "run_admin_server": False,
            "application_version": "1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    DBOS.register_queue(
        "bench",
        worker_concurrency=concurrency,
        polling_interval_sec=0.01,
        on_conflict="always_update",
    )


def options() -> dict[str, str]:
    """Return what a client says of the workflow it queues."""
    return {"workflow_name": "noop", "queue_name": "bench", "app_version": "1"}


def fill(dsn: str, runs: int) -> None:
    """Make the tables and queue so many workflows."""
    launch(dsn, 1)
    DBOS.destroy()
    client = DBOSClient(system_database_url=dsn)
    for number in range(runs):
        client.enqueue(options(), number)


def work(dsn: str, concurrency: int) -> None:
    """Work until killed."""
    launch(dsn, concurrency)
    print("ready", flush=True)
    threading.Event().wait()


def latency(dsn: str, runs: int) -> None:
    """Queue one workflow after the other, and print how long each took."""
    client = DBOSClient(system_database_url=dsn)
    taken = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(runs):
            handle = client.enqueue(options(), number)
            began = perf_counter()
            while not connection.execute(DONE, (handle.workflow_id,)).fetchone()[0]:
                pass
            taken.append((perf_counter() - began) * 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    mode, dsn, count = sys.argv[1:4]
    {"fill": fill, "work": work, "latency": latency}[mode](dsn, int(count))
