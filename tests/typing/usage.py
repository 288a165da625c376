"""What users write, as mypy --strict and pyright must accept and infer it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, assert_type
from uuid import UUID

import msgspec
import psycopg
from sqlalchemy.orm import Session

from flows import (
    AsyncClient,
    Client,
    Context,
    DBConfig,
    MsgspecCodec,
    Registry,
    RetryPolicy,
    RunID,
    RunKey,
    RunRetryPolicy,
    RunStatus,
    Worker,
    exponential_backoff,
)


class Job(msgspec.Struct):
    id: int
    scene: str


@dataclass
class Result:
    frames: list[str]


registry = Registry()


def trace(job: Job) -> list[str]:
    return [job.scene] * job.id


def today() -> datetime:
    return datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def untyped(job):  # type: ignore[no-untyped-def]
    return job


class Encoder:
    def encode(self, frames: list[str]) -> Result:
        return Result(frames)

    def __call__(self, frames: list[str]) -> Result:
        return self.encode(frames)


def scale(factor: float, job: Job) -> float:
    return factor * job.id


@registry.workflow(
    "render",
    codec=MsgspecCodec(),
    concurrency=4,
    processes=2,
    run_retry=RunRetryPolicy(
        max_attempts=5, backoff=exponential_backoff(timedelta(seconds=1), timedelta(minutes=1))
    ),
)
def render(wf: Context, job: Job) -> Result:
    retry = RetryPolicy(
        max_retries=3,
        backoff=lambda failed: timedelta(seconds=failed),
        step_timeout=timedelta(minutes=10),
    )
    frames = wf.execute("trace/v1", trace, job, retry)
    assert_type(frames, list[str])
    assert_type(wf.execute("today/v1", today), datetime)
    assert_type(wf.execute("today/v2", today, retry=retry), datetime)
    assert_type(wf.execute("length/v1", len, frames), int)
    assert_type(wf.execute("lambda/v1", lambda job: job.scene, job), str)
    assert_type(wf.execute("partial/v1", partial(scale, 2.0), job), float)
    assert_type(wf.execute("object/v1", Encoder(), frames), Result)
    assert_type(wf.execute("class/v1", Result, frames), Result)
    assert_type(wf.durable_execute("trace/v2", trace, job), list[str])
    anything: object = wf.execute("untyped/v1", untyped, job)
    assert anything

    wf.tx.execute("UPDATE jobs SET state = 'traced' WHERE id = %s", (job.id,))
    row = wf.tx.execute("SELECT count(*) FROM jobs").fetchone()
    assert row is not None
    with wf.tx.cursor() as cursor, wf.tx.transaction():
        cursor.execute("SELECT 1")

    wf.sleep("cooldown/v1", timedelta(seconds=5))
    assert_type(wf.wait_for_event("number/v1", "CustomerNumber", int), int)
    assert_type(wf.wait_for_event("numbers/v1", "Numbers", list[int]), list[int])
    assert_type(wf.wait_for_event("any/v1", "Anything"), Any)
    assert_type(wf.random_uuidv7("uid/v1"), UUID)
    assert_type(wf.random_uint64("salt/v1"), int)
    assert_type(wf.run_id, RunID)
    assert_type(wf.run_key, RunKey)
    return wf.execute("encode/v1", Encoder().encode, frames)


@registry.workflow("nightly", commit="step")
def nightly(wf: Context) -> None:
    wf.sleep("pause/v1", timedelta(hours=1))


class Demo:
    name = "demo"

    def run(self, wf: Context, inp: Job) -> Result:
        return Result([inp.scene, str(wf.run_id)])


demo = registry.register(Demo(), concurrency=2)


def use_client(tx: psycopg.Connection[Any], dict_tx: psycopg.Connection[dict[str, Any]]) -> None:
    client = Client(db_config=DBConfig(schema="flows", shard_count=1))
    job = Job(1, "sea")

    key = client.begin_tx(tx, render, job)
    assert_type(key, RunKey)
    assert_type(client.begin_tx(dict_tx, demo, job), RunKey)
    assert_type(client.begin_tx(tx, Demo(), job), RunKey)
    assert_type(client.begin_tx(tx, "render", {"id": 1, "scene": "sea"}), RunKey)
    assert_type(client.begin_tx(tx, nightly, None), RunKey)
    assert_type(client.begin_tx(tx, nightly, delay=timedelta(days=3)), RunKey)
    assert_type(
        client.begin_tx(tx, render, job, idempotency_key="a", tags=["b"], priority=9), RunKey
    )
    assert_type(client.begin_many_tx(tx, render, [job, job]), list[RunKey])
    assert_type(client.begin_many_tx(tx, render, [job], tags=("b",)), list[RunKey])

    client.publish_event_tx(tx, key, "CustomerNumber", 3)
    status = client.get_run_status_tx(tx, key)
    assert_type(status, RunStatus)
    assert_type(status.error, str | None)
    assert_type(status.attempts, int)
    assert_type(status.next_wake_at, datetime | None)
    assert_type(client.get_run_output_tx(tx, key, Result), Result)
    assert_type(client.get_run_output_tx(tx, key, list[int]), list[int])
    client.cancel_run_tx(tx, key)
    client.cancel_run_tx(tx, str(key))
    assert_type(RunKey.parse(str(key)), RunKey)


async def use_async_client(tx: psycopg.AsyncConnection[Any], session: Session) -> None:
    async with AsyncClient.connect("dbname=x") as client:
        job = Job(1, "sea")
        key = await client.begin_tx(tx, render, job)
        assert_type(key, RunKey)
        assert_type(await client.begin(nightly, delay=timedelta(days=3)), RunKey)
        assert_type(await client.begin_many(render, [job]), list[RunKey])
        assert_type(await client.status(key), RunStatus)
        assert_type(await client.wait(key, Result, timeout=timedelta(seconds=1)), Result)
    assert_type(Client().begin_tx(session, render, job), RunKey)


def use_worker(dsn: str) -> None:
    worker = Worker(
        registry,
        dsn,
        poll_interval=timedelta(milliseconds=250),
        max_poll_interval=timedelta(seconds=30),
        db_config=DBConfig(),
        disable_notify=False,
        notify_channel=None,
        graceful_shutdown_timeout=timedelta(seconds=30),
        logger=None,
    )
    assert_type(worker.process_one(), bool)
    worker.run()
    worker.stop()
