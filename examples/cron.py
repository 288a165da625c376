"""Schedules: runs that begin at fixed intervals, and by a clock on the wall.

    python examples/cron.py

creates two schedules, works until the first has begun three runs, shows how to pause one, and
deletes both. It uses `FLOWS_DATABASE_URL` or `DATABASE_URL` if set, else an embedded Postgres in
`.flows/pg`. `flows supervise examples.cron:registry` fires and works such schedules in processes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from flows import Client, Context, Registry, Worker, every, parse_cron
from flows.embedded import open_database
from flows.schema import migrate

registry = Registry()
client = Client()
beats = threading.Semaphore(0)


@dataclass(frozen=True)
class ReportOrder:
    """What each run of a schedule is given: the same every time."""

    title: str


@registry.workflow("heartbeat")
def heartbeat(wf: Context, order: ReportOrder) -> str:
    """Run at each tick."""
    text = wf.execute("write/v1", lambda given: f"{given.title}: all is well", order)
    beats.release()
    return text


def main() -> None:
    """Create the schedules, work them for a while, and remove them."""
    with open_database() as database, psycopg.connect(database.dsn, autocommit=True) as connection:
        migrate(connection)
        # Committed with the caller's transaction, like everything a client does.
        with connection.transaction():
            often = every(timedelta(milliseconds=500))
            client.schedule_tx(
                connection, heartbeat, ReportOrder("often"), "often", often, run_now=True
            )
            nightly = parse_cron("30 2 * * *", "Europe/Berlin")
            client.schedule_tx(
                connection,
                heartbeat,
                ReportOrder("nightly"),
                "nightly",
                nightly,
                overlap="skip",
                jitter=timedelta(minutes=10),
            )
        worker = Worker(registry, database.dsn)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        try:
            for number in range(1, 4):
                beats.acquire()
                print(f"run {number} of 'often'")
            client.pause_schedule_tx(connection, "often")
            print("paused: it begins no more runs until client.resume_schedule_tx")
        finally:
            worker.stop()
            thread.join()
            for schedule_id in ("often", "nightly"):
                client.delete_schedule_tx(connection, schedule_id)


if __name__ == "__main__":
    main()
