"""Runs that ended long ago are deleted, by `flows prune` and page by page; no other is."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import RunID, RunKey
from flows.database import connect
from flows.retention import ENDED, FIRST, PAGE, Retention, prune_page
from flows.supervisor.exits import ExitCode
from tests.integration.command import refused, told

if TYPE_CHECKING:
    from tests.running import Runs


def put(runs: Runs, status: str, age: str, shard: str = "demo_0", count: int = 1) -> list[RunKey]:
    """Store runs that were begun, and ended where they did, so long ago."""
    found = runs.rows(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, created_at,"
        " updated_at, finished_at)"
        " SELECT %s, (lpad(to_hex((extract(epoch FROM now() - %s::interval) * 1000)::bigint + n),"
        " 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid, 'demo', %s,"
        " now() - %s::interval, now() - %s::interval,"
        " CASE WHEN %s IN ('completed', 'failed', 'cancelled') THEN now() - %s::interval END"
        " FROM generate_series(1, %s) AS n RETURNING workflow_name_shard, run_id",
        *(shard, age, status, age, age, status, age, count),
    )
    return [RunKey(shard, RunID(run_id)) for shard, run_id in found]


def kept(runs: Runs) -> set[str]:
    return {
        f"{shard}:{run_id}"
        for shard, run_id in runs.rows("SELECT workflow_name_shard, run_id FROM flows.runs")
    }


def test_runs_that_ended_long_ago_are_deleted_with_all_that_is_theirs(runs: Runs) -> None:
    (old,) = put(runs, "completed", "31 days")
    stay = [
        *put(runs, "completed", "29 days"),
        *put(runs, "queued", "40 days"),
        *put(runs, "sleeping", "41 days"),
        *put(runs, "waiting_event", "42 days"),
        *put(runs, "running", "43 days"),
    ]
    runs.connection.execute(
        "INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status)"
        " VALUES (%s, %s, 'step/v1', 'completed')",
        old,
    )
    assert told("prune", "--older-than", "30d", "--yes", "--dsn", runs.dsn) == "1 run deleted\n"
    assert kept(runs) == {str(key) for key in stay}
    assert runs.rows("SELECT * FROM flows.steps") == []


def test_a_run_that_took_long_counts_from_its_end(runs: Runs) -> None:
    (key,) = put(runs, "completed", "31 days")
    runs.connection.execute("UPDATE flows.runs SET finished_at = now() - interval '1 day'")
    assert told("prune", "--older-than", "30d", "--yes", "--dsn", runs.dsn) == "0 runs deleted\n"
    assert kept(runs) == {str(key)}


def test_only_runs_of_the_workflow_and_the_status_are_deleted(runs: Runs) -> None:
    stay = [
        *put(runs, "failed", "31 days"),
        *put(runs, "completed", "31 days", "demo_more_0"),
        *put(runs, "completed", "31 days", "other_0"),
    ]
    put(runs, "completed", "32 days")
    put(runs, "cancelled", "32 days", "demo_3")
    said = told(
        *("prune", "--older-than", "30d", "--workflow", "demo", "--yes", "--dsn", runs.dsn),
        *("--status", "completed", "--status", "cancelled"),
    )
    assert said == "2 runs deleted\n"
    assert kept(runs) == {str(key) for key in stay}


def test_many_are_deleted_in_pages_and_the_pass_ends_at_young_runs(runs: Runs) -> None:
    put(runs, "completed", "40 days", count=PAGE * 2 + 3)
    put(runs, "completed", "1 day", count=PAGE * 3)
    with connect(runs.dsn) as connection:
        sizes = []
        after = FIRST
        while True:
            page = prune_page(connection, runs.config, "demo_0", after, ENDED, 30 * 86_400.0)
            sizes.append(page.deleted)
            if page.last is None:
                break
            after = page.last
    assert sizes == [PAGE, PAGE, 3, 0]
    assert len(kept(runs)) == PAGE * 3


def test_a_run_that_somebody_holds_is_left_and_not_waited_for(runs: Runs) -> None:
    held, _ = put(runs, "failed", "40 days", count=2)
    with psycopg.connect(runs.dsn) as holder:
        holder.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s FOR UPDATE",
            held,
        )
        said = told("prune", "--older-than", "30d", "--yes", "--dsn", runs.dsn)
    assert said == "1 run deleted\n"
    assert kept(runs) == {str(held)}


def test_nothing_is_deleted_without_being_asked(runs: Runs) -> None:
    put(runs, "failed", "40 days")
    code, error = refused("prune", "--older-than", "30d", "--dsn", runs.dsn)
    assert code == ExitCode.FAILED
    assert error == (
        "this would delete the completed or failed or cancelled runs of all workflows"
        " that ended more than 30 d 0 h ago in the database of --dsn; give --yes\n"
    )
    assert len(kept(runs)) == 1


@pytest.mark.parametrize("option", ["30", "-1d", "soon"])
def test_what_is_no_span_is_a_usage_error(runs: Runs, option: str) -> None:
    from tests.integration.command import flows  # noqa: PLC0415

    done = flows("prune", f"--older-than={option}", "--yes", "--dsn", runs.dsn)
    assert done.returncode == ExitCode.USAGE
    assert "is no span of time" in done.stderr


def test_retention_goes_through_all_shards_of_its_workflows_and_no_other(runs: Runs) -> None:
    put(runs, "completed", "1 hour", count=PAGE + 1)
    stay = [*put(runs, "completed", "1 hour", "other_0"), *put(runs, "completed", "1 second")]
    retention = Retention(runs.config, {"demo": 60.0})
    deleted = []
    with connect(runs.dsn) as connection:
        is_over = False
        while not is_over:
            count, is_over = retention.work(connection)
            deleted.append(count)
    assert sum(deleted) == PAGE + 1
    assert kept(runs) == {str(key) for key in stay}
    assert retention.next_pass_s() == 6.0


def test_no_retention_is_idle_until_it_is_given_some(runs: Runs) -> None:
    retention = Retention(runs.config, {})
    assert retention.is_idle
    retention.serve({"demo": 1.0})
    assert not retention.is_idle
    assert uuid.UUID(int=0) == FIRST
