"""`flows stats`: counts by workflow and status, lateness and throughput, at a bounded price."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flows.cli.run_filter import RunFilter
from flows.cli.run_stats import read_stats
from flows.supervisor.exits import ExitCode
from tests.integration.command import refused, told

if TYPE_CHECKING:
    from tests.running import Runs

_INSERT = (
    "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, created_at,"
    " finished_at, worker_id)"
    " SELECT %s, gen_random_uuid(), 'demo', %s, now() - %s::interval, CASE WHEN"
    " %s IN ('completed', 'failed') THEN now() - %s::interval END,"
    " CASE WHEN %s = 'running' THEN gen_random_uuid() END FROM generate_series(1, %s)"
)


def put(runs: Runs, count: int, status: str, age: str, shard: str = "demo_0") -> None:
    runs.connection.execute(_INSERT, (shard, status, age, status, age, status, count))


def test_runs_are_counted_by_workflow_and_status_over_all_shards(runs: Runs) -> None:
    put(runs, 3, "queued", "90 seconds")
    put(runs, 2, "queued", "1 second", "demo_1")
    put(runs, 10, "completed", "60 seconds")
    put(runs, 5, "failed", "1 hour", "demo_1")
    put(runs, 1, "running", "1 hour", "other_0")
    demo, other = json.loads(told("stats", "--json", "--dsn", runs.dsn))
    assert {k: v for k, v in demo["counts"].items() if v} == {
        "queued": 5,
        "completed": 10,
        "failed": 5,
    }
    assert (demo["estimated"], demo["at_least"], demo["is_finished_exact"]) == ([], [], True)
    assert 89 < demo["oldest_due_s"] < 150
    assert demo["finished"] == 10
    assert (other["workflow_name"], other["counts"]["running"]) == ("other", 1)
    assert other["oldest_due_s"] is None
    lines = told("stats", "--workflow", "demo", "--window", "2m", "--dsn", runs.dsn).splitlines()
    assert lines[0].split()[:2] == ["workflow", "queued"]
    assert len(lines) == 2
    assert lines[1].split()[-1] == "5.0"


def test_a_large_shard_is_counted_by_indexes_and_estimates(runs: Runs) -> None:
    put(runs, 3000, "completed", "1 hour")
    put(runs, 40, "failed", "1 hour")
    put(runs, 30, "cancelled", "1 hour")
    put(runs, 200, "queued", "1 hour")
    runs.connection.execute("ANALYZE flows.runs")
    (demo,) = read_stats(_plain(runs), "flows", RunFilter(), 60.0, limit=100)
    assert demo.counts["failed"] == 40
    assert demo.counts["queued"] == 100
    assert demo.at_least == ["queued", "sleeping"]
    assert demo.counts["cancelled"] == 30
    assert demo.estimated == ["completed"]
    assert 2500 < demo.counts["completed"] < 3500
    assert not demo.is_finished_exact


def _plain(runs: Runs) -> Any:
    return runs.connection


def test_a_window_of_no_length_is_refused(runs: Runs) -> None:
    code, error = refused("stats", "--window", "0s", "--dsn", runs.dsn)
    assert (code, error) == (ExitCode.CONFIG, "--window must be a second at least\n")
