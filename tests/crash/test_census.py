"""Workers of a census are killed at its delicate moments: the result must not show it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from examples.census.sources import CensusOrder, batches, list_sources
from examples.census.tables import create_tables
from examples.census.workflows import registry
from flows import Client, RunKey
from tests.citus import not_on_citus
from tests.supervisor.harness import Supervised
from tests.waiting import wait_until, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = not_on_citus("who waits for whom is known to the node where they wait")

FLOWS = Path(sys.executable).with_name("flows")

FILES = 48
CENSUS_TABLES = {
    "census_stages": "stage, tasks_left",
    "census_files": "path, code_lines, error",
    "census_functions": "path, line, name, lines, complexity",
    "census_links": "path, line, other_path, other_line, similarity",
}

SOURCE = '''
def first_{number}(items):
    """Every fourth file is like another one."""
    total = {number} % 4
    for item in items:
        if item and item > {constant}:
            total {operator}= item.value_{kind} * {number}
{more}    return total


def second_{number}(a, b):
    return [x for x in a if x] or b
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(FILES):
        file = root / f"package_{number % 3}" / f"module_{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        source = SOURCE.format(
            number=number,
            constant=number,
            operator="+-*"[number % 3],
            kind=number % 12,
            more="        items.done(item, total)\n" * (number % 4),
        )
        file.write_text(source, "utf-8")
    return root


@pytest.fixture
def order(tree: Path) -> CensusOrder:
    return CensusOrder(
        root=str(tree), batch_kilobytes=2, min_tokens=20, compare_parts=2, quiet_seconds=0.01
    )


def begin(dsn: str, order: CensusOrder) -> RunKey:
    with psycopg.connect(dsn) as tx:
        create_tables(tx)
        return Client().begin_tx(tx, registry.get("census"), order)


@contextlib.contextmanager
def draining(dsn: str, folder: Path) -> Iterator[Supervised]:
    command = [str(FLOWS), "supervise", "examples.census:registry", "--dsn", dsn, "--drain"]
    supervised = Supervised(command, folder)
    try:
        yield supervised
    finally:
        supervised.end()


def drained(supervised: Supervised, dsn: str) -> None:
    """Wait for the end of a drain in which no run failed."""
    code = supervised.wait()
    assert rows(dsn, "SELECT error_text FROM flows.runs WHERE status = 'failed'") == []
    assert code == 0, supervised.stderr


def rows(dsn: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


def outcome(dsn: str, key: RunKey) -> dict[str, Any]:
    """Return the result of a census and its rows; equal for equal files."""
    found: dict[str, Any] = {
        table: sorted(rows(dsn, f"SELECT {columns} FROM {table} WHERE census_id = %s", key.run_id))
        for table, columns in CENSUS_TABLES.items()
    }
    with psycopg.connect(dsn) as tx:
        found["result"] = Client().get_run_output_tx(tx, key, dict[str, Any])
    return found


# What holds a worker up at a moment, and whose worker it is: a row that a transaction of the
# test has written and not committed, where the worker will write the same.
FILE_OF_A_BATCH = "INSERT INTO census_files VALUES (%(id)s, %(path)s, 0, NULL)"
STAGE = "INSERT INTO census_stages VALUES (%(id)s, %(stage)s, 0)"
EVENT = "INSERT INTO flows.events VALUES (%(shard)s, %(id)s, %(stage)s, '0')"
MOMENTS = [
    pytest.param("measure", FILE_OF_A_BATCH, "measure", id="writing-the-rows-of-a-file"),
    pytest.param("measure", EVENT, "measure", id="publishing-that-all-is-measured"),
    pytest.param("compare", EVENT, "compare", id="publishing-that-all-is-compared"),
    pytest.param("census", STAGE, "measure", id="beginning-the-measure-runs"),
    pytest.param("census", STAGE, "compare", id="beginning-the-compare-runs"),
]


def held_up_worker(dsn: str, blocker: psycopg.Connection[Any], workflow: str) -> int:
    """Return the pid of the worker that waits for `blocker`, when all other runs have ended."""

    def is_held_up() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        return rows(dsn, query, blocker.info.backend_pid) == [(1,)]

    def only_one() -> list[tuple[Any, ...]]:
        active = rows(
            dsn,
            "SELECT workflow_name, status, pid FROM flows.runs LEFT JOIN flows.workers"
            " USING (worker_id) WHERE status IN ('queued', 'running', 'sleeping')",
        )
        return active if len(active) == 1 else []

    wait_until(is_held_up, what="a worker is held up")
    ((name, status, pid),) = wait_until(only_one, what="one run goes on")
    assert (name, status) == (workflow, "running")
    assert isinstance(pid, int)
    return pid


def a_path_within_a_batch(order: CensusOrder) -> tuple[str, str]:
    """Return the first two files of a batch; a census writes them in this order."""
    portions = batches(list_sources(order).files, order.batch_kilobytes * 1024)
    first, second = portions[len(portions) // 2][:2]
    return first, second


def drain_with_a_kill(
    dsn: str, folder: Path, block: str, values: dict[str, Any], workflow: str
) -> None:
    """Drain, and kill the worker of `workflow` that `block` holds up, once nobody else works."""
    with psycopg.connect(dsn) as blocker, draining(dsn, folder) as supervised:
        blocker.execute(block, values)
        pid = held_up_worker(dsn, blocker, workflow)
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid, what="the killed worker")
        blocker.rollback()
        drained(supervised, dsn)
        assert f"(pid {pid}) died by SIGKILL" in supervised.stderr


@pytest.mark.parametrize(("workflow", "block", "stage"), MOMENTS)
def test_a_killed_worker_changes_nothing(
    flows_dsn: str, tmp_path: Path, order: CensusOrder, *, workflow: str, block: str, stage: str
) -> None:
    undisturbed = begin(flows_dsn, order)
    with draining(flows_dsn, tmp_path) as supervised:
        drained(supervised, flows_dsn)

    key = begin(flows_dsn, order)
    _, path = a_path_within_a_batch(order)
    values = {"id": key.run_id, "shard": key.workflow_name_shard, "stage": stage, "path": path}
    drain_with_a_kill(flows_dsn, tmp_path, block, values, workflow)

    disturbed = outcome(flows_dsn, key)
    assert disturbed == outcome(flows_dsn, undisturbed)
    assert disturbed["census_stages"] == [("compare", 0), ("measure", 0)]
    assert len(disturbed["census_files"]) == FILES
    assert len(disturbed["census_functions"]) == 2 * FILES
    assert disturbed["result"]["near_duplicates"]
    check_runs(
        flows_dsn, key, len(batches(list_sources(order).files, order.batch_kilobytes * 1024))
    )


def test_files_measured_before_a_kill_are_not_measured_again(
    flows_dsn: str, tmp_path: Path, order: CensusOrder
) -> None:
    key = begin(flows_dsn, order)
    before, path = a_path_within_a_batch(order)
    values = {"id": key.run_id, "path": path}
    drain_with_a_kill(flows_dsn, tmp_path, FILE_OF_A_BATCH, values, "measure")
    # Each memo tells which claim of its run has written it.
    written = dict(rows(flows_dsn, "SELECT step_key, claim FROM flows.steps"))
    assert (written[f"file/v1/{before}"], written[f"file/v1/{path}"]) == (1, 2)


def check_runs(dsn: str, key: RunKey, measure_runs: int) -> None:
    """Every run was begun once, completed, and was charged with no failure; every file once."""
    found = rows(
        dsn,
        "SELECT workflow_name, status, attempts, count(*) FROM flows.runs"
        " WHERE created_at >= (SELECT created_at FROM flows.runs WHERE run_id = %s)"
        " GROUP BY 1, 2, 3 ORDER BY 1",
        key.run_id,
    )
    assert found == [
        ("census", "completed", 0, 1),
        ("compare", "completed", 0, 2),
        ("measure", "completed", 0, measure_runs),
    ]
    steps = rows(
        dsn,
        "SELECT count(*) FROM flows.steps JOIN flows.runs USING (workflow_name_shard, run_id)"
        " WHERE workflow_name = 'measure' AND step_key LIKE 'file/%%'"
        " AND steps.status = 'completed'"
        " AND runs.created_at >= (SELECT created_at FROM flows.runs WHERE run_id = %s)",
        key.run_id,
    )
    assert steps == [(FILES,)]
