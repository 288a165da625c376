"""What type checkers must refuse: every line marked so, and no other."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

from flows import Client, Context, Registry, RetryPolicy, RunKey, Worker
from tests.typing.usage import Demo, Job, Result, nightly, render, today, trace


def mistake_steps(wf: Context, job: Job) -> None:
    wf.execute("k", trace, "sea")  # refused: the step takes a Job
    wf.execute("k", trace)  # refused: the step takes a Job
    wf.execute("k", today, job)  # refused: the step takes nothing
    wf.execute("k", today())  # refused: called instead of passed
    wf.execute(trace, job)  # refused: no key
    count: int = wf.execute("k", trace, job)  # refused: the step returns a list
    print(count)


def mistake_durations(wf: Context) -> None:
    wf.sleep("k", 5)  # refused: of what?
    RetryPolicy(max_retries=3, step_timeout=10)  # refused: of what?
    RetryPolicy(backoff=lambda failed: 0.5 * failed)  # refused: of what?
    wf.sleep(timedelta(seconds=5))  # refused: no key


def mistake_primitives(wf: Context) -> None:
    text: str = wf.wait_for_event("k", "Number", int)  # refused: it is an int
    wf.random_uint64()  # refused: no key
    wf.run_id = text  # refused: it is the run's


def mistake_registration(registry: Registry) -> None:
    class Nameless:
        def run(self, wf: Context, inp: Job) -> Result:
            return Result([inp.scene, wf.workflow_name])

    registry.register(Nameless())  # refused: no name
    registry.workflow("w", concurrency="four")  # refused: a number
    registry.workflow("w", commit="never")  # refused: attempt or step
    registry.workflow("w", 4)  # refused: four of what?

    @registry.workflow("two")  # refused: a workflow takes one input
    def two(wf: Context, left: Job, right: Job) -> None:
        wf.execute("k", print, (left, right))

    @registry.workflow("bare")  # refused: a workflow takes its context first
    def bare(inp: Job) -> str:
        return inp.scene


def mistake_calls_of_the_client(client: Client, tx: psycopg.Connection[Any], key: RunKey) -> None:
    job = Job(1, "sea")
    client.begin_tx(tx, render, "sea")  # refused: the workflow takes a Job
    client.begin_tx(tx, render)  # refused: the workflow takes a Job
    client.begin_tx(tx, nightly, job)  # refused: the workflow takes nothing
    client.begin_tx(tx, nightly, delay=60)  # refused: sixty of what?
    client.begin_tx(tx, render, job, tags="sea", priotity=1)  # refused: a misspelt option
    client.begin_many_tx(tx, render, [job], idempotency_key="a")  # refused: of which of them?
    client.begin_tx(tx, Demo(), "sea")  # refused: the workflow takes a Job
    client.begin_tx(render, job)  # refused: no transaction
    client.begin_many_tx(tx, render, job)  # refused: not many
    client.begin_many_tx(tx, render, ["sea"])  # refused: the workflow takes a Job
    client.cancel_run_tx(key)  # refused: no transaction
    number: int = client.get_run_output_tx(tx, key, Result)  # refused: it is a Result
    moment: datetime = client.get_run_status_tx(tx, key).next_wake_at  # refused: may be None
    print(number, moment)


def mistake_options_of_the_worker(registry: Registry, dsn: str) -> None:
    Worker(registry, dsn, poll_interval=250)  # refused: of what?
    Worker(registry, dsn, timedelta(seconds=1))  # refused: which duration?
    Worker(dsn, registry)  # refused: the other way round
