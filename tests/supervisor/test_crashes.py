"""Runs that end their process: blamed, executed alone, and given up; the others are not charged."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Client
from flows.supervisor.memory import OomKills
from tests.supervisor.app import poisoned
from tests.supervisor.harness import APP, FLOWS, ROOT, Supervised, begin, execute
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.supervisor.conftest import StartApp

GOOD = 1000


def test_a_poison_run_among_a_thousand_is_given_up_and_the_others_complete(app: StartApp) -> None:
    supervised = app("--only", "poisoned", "--drain")
    doses = list(range(GOOD))
    doses.insert(GOOD // 2, -1)
    with psycopg.connect(supervised.dsn, autocommit=True) as connection:
        wait_until(
            lambda: connection.execute("SELECT to_regclass('flows.workers')").fetchone() != (None,),
            what="the tables are there",
        )
        with connection.transaction():
            keys = Client().begin_many_tx(connection, poisoned, doses)
    poison = keys[GOOD // 2]
    assert supervised.process.wait(60) == 1, supervised.stderr
    [(status, crashes, error)] = execute(
        supervised.dsn,
        f"SELECT status, crashes, error_text FROM flows.runs WHERE run_id = '{poison.run_id}'",
    )
    assert (status, crashes) == ("failed", 3)
    assert "SIGSEGV in step 'swallow/v1'" in error
    others = execute(
        supervised.dsn,
        "SELECT status, max(crashes), count(*) FROM flows.runs"
        f" WHERE run_id <> '{poison.run_id}' GROUP BY status",
    )
    assert [(status, count) for status, _, count in others] == [("completed", GOOD)]
    assert others[0][1] <= 1
    # Its second and third death had one suspect.
    alone = execute(
        supervised.dsn,
        "SELECT count(*) FROM (SELECT worker_id FROM flows.crashes GROUP BY 1 HAVING count(*) = 1)"
        " AS alone",
    )
    assert alone[0][0] >= 2
    shown = subprocess.run(
        [*FLOWS, "runs", "show", str(poison), "--dsn", supervised.dsn],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "0 failed, 3 crashed" in shown
    assert shown.count("SIGSEGV\n") == 3
    assert "in step swallow/v1" in shown


def test_runs_of_other_processes_and_those_not_begun_are_not_charged(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held", "--only", "held-in-transaction")
    for _ in range(3):
        begin(supervised.dsn, "held", str(gate))
    begin(supervised.dsn, "held-in-transaction", str(gate))
    first = supervised.expect("executing", "held")
    supervised.expect("executing", "held")
    supervised.expect("executing", "held-in-transaction")
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(
        lambda: execute(supervised.dsn, "SELECT 1 FROM flows.crashes LIMIT 1"),
        what="somebody is charged",
    )
    charged = execute(
        supervised.dsn,
        "SELECT workflow_name, crashes, count(*) FROM flows.runs GROUP BY 1, 2 ORDER BY 1, 2",
    )
    # The third was claimed ahead, if at all.
    assert charged == [("held", 0, 1), ("held", 1, 2), ("held-in-transaction", 0, 1)]
    assert execute(supervised.dsn, "SELECT DISTINCT cause, step_key FROM flows.crashes") == [
        ("SIGKILL", "gate/v1")
    ]


def test_a_run_whose_process_dies_in_a_long_query_is_executed_again_at_once(
    app: StartApp, tmp_path: Path
) -> None:
    supervised = app("--only", "querying")
    begin(supervised.dsn, "querying", str(tmp_path / "asked"))
    first = supervised.expect("executing", "querying")
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"
    wait_until(lambda: execute(supervised.dsn, asleep), what="it waits for the answer")
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect("executing", "querying")
    wait_until(
        lambda: execute(supervised.dsn, "SELECT 1 FROM flows.runs WHERE status = 'completed'"),
        what="the run is completed",
    )
    assert execute(supervised.dsn, "SELECT crashes FROM flows.runs") == [(1,)]


def test_nobody_is_charged_when_the_supervisor_stops_at_once(app: StartApp, gate: Path) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    supervised.send(signal.SIGQUIT)
    assert supervised.process.wait(20) == 0
    assert execute(supervised.dsn, "SELECT crashes, is_suspect FROM flows.runs") == [(0, False)]


def test_a_process_that_hangs_is_killed_and_its_run_charged_with_that(
    app: StartApp, tmp_path: Path
) -> None:
    supervised = app("--only", "stalled")
    begin(supervised.dsn, "stalled", str(tmp_path / "marker"))
    wait_until(
        lambda: execute(supervised.dsn, "SELECT 1 FROM flows.crashes"),
        what="the run is charged",
        timeout_s=30,
    )
    [(cause, step)] = execute(supervised.dsn, "SELECT cause, step_key FROM flows.crashes")
    assert cause.startswith("SIGKILL (no Python has run for ")
    assert step == "stall/v1"


def test_a_process_that_hangs_with_its_first_run_is_killed_too(
    app: StartApp, flows_dsn: str, tmp_path: Path
) -> None:
    begin(flows_dsn, "stalled", str(tmp_path / "marker"))
    app("--only", "stalled")
    charged = "SELECT cause FROM flows.crashes"
    wait_until(lambda: execute(flows_dsn, charged), what="the run is charged", timeout_s=40)
    [(cause,)] = execute(flows_dsn, charged)
    assert cause.startswith("SIGKILL (no Python has run for ")


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A cgroup whose processes have 300 MB between them."""
    group = _new_cgroup()
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), what="the cgroup is empty")
    group.rmdir()


def _new_cgroup() -> Path:
    counter = OomKills().file
    if counter is None:
        pytest.skip("no memory cgroup here")
    group = counter.parent / f"flows-test-{uuid.uuid4().hex}"
    limit = "memory.max" if counter.name == "memory.events" else "memory.limit_in_bytes"
    try:
        group.mkdir()
        (group / limit).write_text(str(300 << 20))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    return group


def test_a_process_that_the_kernel_kills_for_its_memory_is_told_from_others(
    flows_dsn: str, tmp_path: Path, small_cgroup: Path
) -> None:
    enter = f'echo $$ > {small_cgroup}/cgroup.procs && exec "$@"'
    flows = [*FLOWS, "supervise", APP, "--dsn", flows_dsn, "--only", "hoarder", "--drain"]
    supervised = Supervised(["sh", "-c", enter, "sh", *flows, "--begin", "hoarder"], tmp_path)
    try:
        assert supervised.process.wait(60) == 1
    finally:
        supervised.end()
    causes = execute(flows_dsn, "SELECT cause, step_key FROM flows.crashes")
    assert causes == [("SIGKILL (out of memory)", "hoard/v1")] * 3
