"""`flows runs list`: pages of the runs that filters let through."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from flows import RunID, RunKey
from flows.supervisor.exits import ExitCode
from tests.integration.command import flows, refused, told

if TYPE_CHECKING:
    from tests.running import Runs

HOUR = timedelta(hours=1)


def id_of(at: datetime, salt: int = 0) -> UUID:
    """Return an id as it is made at an instant."""
    return UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | salt)


def put(
    runs: Runs,
    status: str,
    age: timedelta = timedelta(),
    shard: str = "demo_0",
    error: str | None = None,
    run_id: UUID | None = None,
) -> str:
    """Store a run as it looks when it is so old, and return its key."""
    ((number,),) = runs.rows("SELECT count(*) FROM flows.runs")
    begun = datetime.now(UTC) - age  # noqa: TID251  what a client's clock does
    key = RunKey(shard, RunID(run_id or id_of(begun, number)))
    runs.connection.execute(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, error_text,"
        " created_at, updated_at, worker_id)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *key,
            key.workflow_name,
            status,
            error,
            begun,
            begun,
            UUID(int=1) if status == "running" else None,
        ),
    )
    return str(key)


def listed(runs: Runs, *options: str) -> list[str]:
    page = json.loads(told("runs", "list", "--json", "--dsn", runs.dsn, *options))
    return [run["run_key"] for run in page["runs"]]


def test_the_last_begun_run_comes_first_whatever_its_shard(runs: Runs) -> None:
    keys = [put(runs, "queued", n * HOUR, f"demo_{n % 3}") for n in range(5)]
    assert listed(runs) == keys
    lines = told("runs", "list", "--dsn", runs.dsn).splitlines()
    assert lines[0].split() == ["run", "status", "begun", "failures", "error"]
    assert [line.split()[0] for line in lines[1:]] == keys


def test_pages_follow_each_other_without_a_gap_and_without_a_run_twice(runs: Runs) -> None:
    same = id_of(datetime.now(UTC), 7)  # noqa: TID251  what a client's clock does
    keys = {put(runs, "queued", n * HOUR, f"demo_{n % 3}") for n in range(1, 8)}
    keys |= {put(runs, "queued", shard=f"{name}_0", run_id=same) for name in "abc"}
    seen: list[str] = []
    after: list[str] = []
    while True:
        page = json.loads(told("runs", "list", "--json", "--limit", "2", "--dsn", runs.dsn, *after))
        seen += [run["run_key"] for run in page["runs"]]
        if page["next"] is None:
            break
        assert len(page["runs"]) == 2
        after = ["--after", page["next"]]
    assert len(seen) == len(keys)
    assert set(seen) == keys


def test_the_way_to_the_next_page_is_told_beside_the_page(runs: Runs) -> None:
    key = put(runs, "queued")
    put(runs, "queued", HOUR)
    done = flows("runs", "list", "--limit", "1", "--dsn", runs.dsn)
    assert done.stderr == f"flows: there are more: --after {key}\n"
    done = flows("runs", "list", "--limit", "2", "--dsn", runs.dsn)
    assert done.stderr == ""


def test_runs_are_chosen_by_workflow_status_age_and_error(runs: Runs) -> None:
    young = put(runs, "failed", error="ValueError: 100% Bad\nat line 3")
    old = put(runs, "failed", 3 * HOUR, error="KeyError: gone")
    other = put(runs, "completed", 2 * HOUR, "demo_more_0")
    held = put(runs, "running", 4 * HOUR)
    assert listed(runs, "--workflow", "demo") == [young, old, held]
    assert listed(runs, "--workflow", "demo_more") == [other]
    assert listed(runs, "--status", "failed") == [young, old]
    assert listed(runs, "--status", "running") == [held]
    assert listed(runs, "--status", "completed", "--status", "running") == [other, held]
    assert listed(runs, "--older-than", "150m") == [old, held]
    assert listed(runs, "--newer-than", "2h30m") == [young, other]
    assert listed(runs, "--older-than", "1h", "--newer-than", "3h30m") == [other, old]
    assert listed(runs, "--error", "100% bad") == [young]
    assert listed(runs, "--error", "line 3") == [young]
    assert listed(runs, "--error", "_") == []
    assert listed(runs, "--error", "gone", "--status", "completed") == []


def test_runs_with_random_ids_are_chosen_by_their_stored_time(runs: Runs) -> None:
    old = put(runs, "queued", 30 * HOUR, run_id=UUID("f0000000-0000-4000-8000-000000000000"))
    young = put(runs, "queued", run_id=UUID("00000000-0000-4000-8000-000000000000"))
    assert listed(runs, "--older-than", "1d") == [old]
    assert listed(runs, "--newer-than", "1d") == [young]


def test_a_list_without_runs_says_so(runs: Runs) -> None:
    assert told("runs", "list", "--dsn", runs.dsn) == "no runs\n"
    put(runs, "queued")
    assert told("runs", "list", "--workflow", "other", "--dsn", runs.dsn) == "no runs\n"
    page = json.loads(told("runs", "list", "--workflow", "other", "--json", "--dsn", runs.dsn))
    assert page["runs"] == []


def test_an_error_is_shown_by_its_first_line_made_harmless(runs: Runs) -> None:
    put(runs, "failed", error="ValueError: \x1b[2J no\nTraceback")
    line = told("runs", "list", "--dsn", runs.dsn).splitlines()[1]
    assert line.endswith(r"ValueError: \x1b[2J no")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--after", "nonsense"], ExitCode.CONFIG, "'nonsense' is not a run key"),
        (["--error", ""], ExitCode.CONFIG, "the error's text cannot be ''"),
        (["--workflow", ""], ExitCode.CONFIG, "the workflow cannot be ''"),
        (
            ["--older-than", "2h", "--newer-than", "2h"],
            ExitCode.CONFIG,
            "no run is both older and newer",
        ),
    ],
)
def test_a_filter_that_lets_nothing_through_is_refused(
    runs: Runs, options: list[str], code: int, said: str
) -> None:
    refusal = refused("runs", "list", "--dsn", runs.dsn, *options)
    assert refusal[0] == code
    assert refusal[1].startswith(said)


def test_a_page_looks_at_few_of_many_runs(runs: Runs) -> None:
    runs.connection.execute(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, created_at)"
        " SELECT 'demo_' || n % 4, (lpad(to_hex(((extract(epoch FROM now()) - n) * 1000)::bigint),"
        " 12, '0') || '7000800000000000' || '0000')::uuid, 'demo',"
        " CASE WHEN n % 1000 = 0 THEN 'failed' ELSE 'completed' END, now() - n * interval '1 s'"
        " FROM generate_series(1, 40000) AS n"
    )
    runs.connection.execute("ANALYZE flows.runs")
    for options in ({}, {"statuses": ("failed",)}, {"older_s": 20_000.0}, {"newer_s": 60.0}):
        assert looked_at(runs, options) < 1500


def looked_at(runs: Runs, options: dict[str, Any]) -> int:
    """Return how many pages of the database a page of the list looks at."""
    from flows import sql  # noqa: PLC0415
    from flows.cli.run_filter import RunFilter  # noqa: PLC0415
    from flows.cli.run_list import shards  # noqa: PLC0415

    chosen = RunFilter(**options)
    pages = 0
    for shard in shards(runs.connection, "flows", chosen):
        values = chosen.values() | {
            "shard": shard.name,
            "least": shard.least,
            "greatest": shard.greatest,
            "excluded": None,
            "limit": 51,
        }
        explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.load("list_runs")
        row = runs.connection.execute(explain, values, prepare=False).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages
