"""How fast worker processes drain runs, timed by the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

import flows
from benchmarks.arena import fresh_schema, wait_until, worker_process
from flows.supervisor import cores

__all__ = ["WORKER", "drain"]

WORKER = "benchmarks.worker_app"
GIVE_UP_S = 240
_LEFT = """
    SELECT EXISTS (
        SELECT FROM flows.runs WHERE workflow_name_shard = ANY(%s)
        AND status IN ('queued', 'sleeping') AND coalesce(next_wake_at, created_at) <= now()
    ) OR EXISTS (SELECT FROM flows.runs WHERE worker_id IS NOT NULL)
"""
_ELAPSED = """
    SELECT count(*) FILTER (WHERE status = 'completed'),
        extract(epoch FROM max(finished_at) - min(started_at))::float8
    FROM flows.runs WHERE started_at IS NOT NULL AND created_at >= %s
"""


def drain(
    dsn: str,
    runs: int,
    concurrency: int,
    prepare: Callable[[str], None] | None = None,
    *,
    shards: int = 1,
    workflows: tuple[str, ...] = ("noop",),
    processes: int = 1,
    input: Any = 1,  # noqa: A002
    fresh: bool = True,
    pinned: bool = False,
) -> float:
    """Begin `runs` of each workflow, have worker processes drain them; return all runs per second.

    Timed from the first claim to the last commit.

    Args:
        dsn: the database; its tables are made anew if `fresh`.
        runs: how many of each workflow.
        concurrency: of each process.
        prepare: may put other rows into the tables before.
        shards: over how many the runs are spread.
        workflows: each has processes of its own.
        processes: how many for each workflow.
        input: of every run.
        fresh: whether the tables are made anew.
        pinned: whether each process keeps to a core of its own.
    """
    config = flows.DBConfig(shard_count=shards)
    if fresh:
        fresh_schema(dsn)
    if prepare is not None:
        prepare(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection, contextlib.ExitStack() as stack:
        began = connection.execute("SELECT clock_timestamp()").fetchone()
        assert began is not None
        names = [s for name in workflows for s in flows.shard_values_for_workflow(name, shards)]
        # Several processes are ready before there is work: none has a head start.
        is_alone = len(workflows) * processes == 1
        if not is_alone:
            _start(stack, dsn, workflows * processes, concurrency, shards, pinned=pinned)
        client = flows.Client(db_config=config)
        with connection.transaction():
            inputs = [input] * runs
            begun = [client.begin_many_tx(connection, name, inputs) for name in workflows]
        if is_alone:
            connection.execute("VACUUM ANALYZE flows.runs")
            _start(stack, dsn, workflows, concurrency, shards, pinned=pinned)
        # One run by its key: to look for what is queued takes a walk over all that is not.
        for keys in begun:
            wait_until(
                partial(_has_ended, connection, client, keys[-1]),
                GIVE_UP_S,
                "the last run to end",
                every_s=0.1,
            )
        wait_until(
            lambda: connection.execute(_LEFT, (names,)).fetchone() == (False,),
            GIVE_UP_S,
            "the worker to drain the queue",
            every_s=0.1,
        )
        row = connection.execute(_ELAPSED, began).fetchone()
    assert row is not None
    if row[0] != runs * len(workflows):
        raise SystemExit(f"{row[0]} of {runs * len(workflows)} runs completed")
    return float(row[0] / row[1])


def _has_ended(
    connection: psycopg.Connection[Any], client: flows.Client, key: flows.RunKey
) -> bool:
    return client.get_run_status_tx(connection, key).status in ("completed", "failed", "cancelled")


def _start(
    stack: contextlib.ExitStack,
    dsn: str,
    names: tuple[str, ...],
    concurrency: int,
    shards: int,
    *,
    pinned: bool,
) -> None:
    taken: list[int | None] = []
    for name in names:
        core = cores.least_used(cores.available(), taken) if pinned else None
        taken.append(core)
        arguments = (name, str(concurrency), str(shards), "" if core is None else str(core))
        stack.enter_context(worker_process(WORKER, dsn, *arguments))
