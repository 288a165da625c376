"""Every primitive of a workflow in one short program.

    python examples/simple.py

uses `FLOWS_DATABASE_URL` or `DATABASE_URL` if set, else an embedded Postgres in `.flows/pg`. It
begins a run, works it in a thread of its own, publishes the event that the run waits for, and
prints the result. `flows supervise examples.simple:registry` works such runs in processes.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import psycopg

from flows import Client, Context, Registry, RetryPolicy, RunKey, Worker
from flows.embedded import open_database
from flows.schema import migrate

EVENT = "CustomerNumberEvent"


@dataclass(frozen=True)
class DemoInput:
    """What the process starts with, and how long it sleeps on its way."""

    initial_data: str
    sleep_seconds: float = 0.2


@dataclass(frozen=True)
class DemoOutput:
    """What came of it."""

    result: str


class DemoProcess:
    """A workflow as an object: it can hold what its steps share, such as an API client.

    Several threads run the same object at once, so what it holds must stand that.
    """

    name = "demo_process"

    def __init__(self, greeting: str = "hello") -> None:
        self._greeting = greeting

    def count_letters(self, data: str) -> int:
        """Step 1."""
        return len(f"{self._greeting} {data}")

    def accept_number(self, number: int) -> bool:
        """Step 2."""
        return number > 0

    def complete(self, order_id: UUID) -> str:
        """Step 3."""
        return f"{self._greeting} {order_id}"

    def run(self, wf: Context, inp: DemoInput, /) -> DemoOutput:
        """Run from the top at every resume: what is memoized answers at once."""
        again = RetryPolicy(max_retries=3)
        letters = wf.execute("first_step/v1", self.count_letters, inp.initial_data, again)

        # Yields: no thread and no connection is held while the run sleeps or waits.
        wf.sleep("sleep_before_customer/v1", timedelta(seconds=inp.sleep_seconds))
        number = wf.wait_for_event("customer_number/v1", EVENT, int)
        accepted = wf.execute("second_step/v1", self.accept_number, number, again)

        # Random, yet the same whenever this run is resumed.
        order_id = wf.random_uuidv7("order_id/v1")
        completed = wf.execute("third_step/v1", self.complete, order_id, again)
        return DemoOutput(f"{letters=} {number=} {accepted=} {completed=}")


registry = Registry()
demo = registry.register(DemoProcess())
client = Client()


def main() -> int:
    """Begin a run, work it, feed it, and print its output."""
    with open_database() as database:
        with psycopg.connect(database.dsn) as connection:
            migrate(connection)
        # The run exists once the caller's own transaction commits, and not at all otherwise.
        with psycopg.connect(database.dsn) as tx:
            key = client.begin_tx(tx, demo, DemoInput("world"))
        worker = Worker(registry, database.dsn)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        try:
            with psycopg.connect(database.dsn) as tx:
                client.publish_event_tx(tx, key, EVENT, 3)
            return print_output(database.dsn, key, thread)
        finally:
            worker.stop()
            thread.join()


def print_output(dsn: str, key: RunKey, worker: threading.Thread) -> int:
    """Print the run's output once it is completed; return the exit code."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        while worker.is_alive():
            run = client.get_run_status_tx(connection, key)
            if run.status == "completed":
                print(client.get_run_output_tx(connection, key, DemoOutput).result)
                return 0
            if run.status in {"failed", "cancelled"}:
                print(f"run {key} is {run.status}: {run.error}", file=sys.stderr)
                return 1
            worker.join(timeout=0.02)  # a pause that ends early if the worker does
    return 1  # the worker's thread has said why


if __name__ == "__main__":
    sys.exit(main())
