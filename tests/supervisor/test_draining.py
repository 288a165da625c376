"""What is left of a drain, and what has failed in it, read from the database."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from flows import sql
from flows.config import DBConfig
from flows.database import connect
from flows.supervisor.draining import DrainWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.database import Connection

STATUSES = (
    "queued",
    "running",
    "sleeping",
    "waiting_event",
    "completed",
    "failed",
    "cancelled",
)


@pytest.fixture
def connection(flows_dsn: str) -> Iterator[Connection]:
    with connect(flows_dsn) as connection:
        yield connection


def insert(connection: Connection, shard: str, status: str, age: str = "0 s") -> None:
    connection.execute(
        "INSERT INTO flows.runs"
        " (workflow_name_shard, run_id, workflow_name, status, worker_id, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, now() - %s::interval)",
        (
            shard,
            uuid.uuid4(),
            shard.rpartition("_")[0],
            status,
            uuid.uuid4() if status == "running" else None,
            age,
        ),
    )


def test_unfinished_runs_are_counted_in_every_shard_and_of_these_workflows_alone(
    connection: Connection,
) -> None:
    for status in STATUSES:
        for shard in ("render_0", "render_1", "other_0"):
            insert(connection, shard, status)
    insert(connection, "demo_1", "sleeping")
    watch = DrainWatch(DBConfig(shard_count=2), ("render", "demo"))
    assert watch.unfinished(connection) == {
        "render": {"queued": 2, "running": 2, "sleeping": 2, "waiting_event": 2},
        "demo": {"sleeping": 1},
    }


def test_only_what_has_failed_since_the_start_is_charged(connection: Connection) -> None:
    insert(connection, "render_0", "failed", age="1 hour")
    insert(connection, "render_0", "failed")
    insert(connection, "render_1", "failed")
    insert(connection, "render_0", "cancelled")
    insert(connection, "other_0", "failed")
    row = connection.execute("SELECT now() - interval '1 minute'").fetchone()
    assert row is not None
    watch = DrainWatch(DBConfig(shard_count=2), ("render", "demo"))
    assert watch.failed(connection, row[0]) == {"render": 2}


def test_counting_looks_at_no_finished_run(connection: Connection) -> None:
    """Counted again and again: history must cost nothing."""
    connection.execute(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status)"
        " SELECT 'render_0', gen_random_uuid(), 'render', 'completed'"
        " FROM generate_series(1, 20000)"
    )
    insert(connection, "render_0", "queued")
    connection.execute("ANALYZE flows.runs")

    plan = connection.execute(
        b"EXPLAIN (ANALYZE, FORMAT TEXT) " + sql.load("report_unfinished_runs"),
        {"shards": ["render_0"]},
    ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Seq Scan" not in text, text
    for index in ("runs_claimable_idx", "runs_running_idx", "runs_waiting_idx"):
        assert index in text, text


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 0.1), (0.02, 0.4), (1.0, 2.0)])
def test_the_longer_counting_takes_the_less_often_it_is_done(took_s: float, pause_s: float) -> None:
    assert DrainWatch.pause_s(took_s) == pytest.approx(pause_s)
