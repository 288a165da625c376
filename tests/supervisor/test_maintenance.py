"""The maintenance process keeps leases and gives back the runs of the dead."""

from __future__ import annotations

import os
import signal
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Client, every
from tests.supervisor.harness import Supervised, begin, child_titled, execute, rows
from tests.waiting import wait_until, wait_until_gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.supervisor.conftest import StartApp

INSERT_RUNNING = """
    INSERT INTO flows.runs
        (workflow_name_shard, run_id, workflow_name, status, claim, worker_id, input_json)
    VALUES ('held_0', %s, 'held', 'running', 1, %s, to_jsonb(%s::text))
"""


def test_what_is_to_be_released_outlives_a_lost_connection(app: StartApp, gate: Path) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    supervised.expect_said("maintenance ready")
    wait_until(
        lambda: execute(
            supervised.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'flows maintenance' AND datname = current_database()"
            " AND state = 'idle'",
        ),
        what="the connection of maintenance is cut",
    )
    execute(supervised.dsn, "UPDATE flows.workers SET lease_expires_at = now() + '1 s'")
    os.kill(first["pid"], signal.SIGKILL)
    second = supervised.expect("executing", "held")
    assert second["run"] == first["run"]
    supervised.expect_said("maintenance: the database is back")
    # Once it is back, the leases of those that live are renewed before anything else.
    [(renewed,)] = execute(
        supervised.dsn,
        "SELECT lease_expires_at > now() + '10 s' FROM flows.workers WHERE stopped_at IS NULL",
    )
    assert renewed


def test_runs_of_a_worker_that_dies_while_maintenance_hangs_are_released_by_the_next_one(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    supervised.expect_said("maintenance ready")
    maintenance = child_titled(supervised, "flows: maintenance")
    os.kill(maintenance, signal.SIGSTOP)
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect_said(f"worker held (pid {first['pid']}) died by SIGKILL")
    assert rows(supervised.dsn) == [("held", "running", 0)]
    os.kill(maintenance, signal.SIGKILL)
    assert supervised.expect("executing", "held")["run"] == first["run"]


def test_a_claim_that_was_committed_after_its_workers_death_is_given_back_too(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    [(dead,)] = execute(supervised.dsn, "SELECT worker_id FROM flows.runs")
    supervised.expect_said("maintenance ready")
    late = uuid.uuid4()
    with psycopg.connect(supervised.dsn) as claim:
        claim.execute(INSERT_RUNNING, (late, dead, str(gate)))
        os.kill(first["pid"], signal.SIGKILL)
        supervised.expect_said("worker held: 1 run given back")
    runs = set()
    for _ in range(2):
        # One after the other: the first is charged with the death, and executed alone.
        runs.add(supervised.expect("executing", "held")["run"])
        gate.write_text("pass")
    assert runs == {first["run"], str(late)}
    # By those who know that its worker has died, and not because a lease has run out.
    wait_until(lambda: supervised.stderr.count("worker: 1 run given back") == 1, what="it is told")
    assert "lost workers" not in supervised.stderr


@pytest.mark.parametrize(
    ("lease", "is_rescued"), [("- interval '1 s'", True), ("+ interval '1 hour'", False)]
)
def test_runs_of_a_lost_host_are_rescued_once_its_lease_is_over(
    app: StartApp, flows_dsn: str, gate: Path, lease: str, is_rescued: bool
) -> None:
    lost, run = uuid.uuid4(), uuid.uuid4()
    execute(
        flows_dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        f" VALUES (%s, ARRAY['held'], 'elsewhere', 1, now() {lease})",
        lost,
    )
    execute(flows_dsn, INSERT_RUNNING, run, lost, str(gate))
    supervised = app("--only", "held", "--drain", "--begin", f'held="{gate}"')
    runs = {supervised.expect("executing", "held")["run"] for _ in range(1 + is_rescued)}
    assert (str(run) in runs) is is_rescued
    # It is counted as unfinished, whoever holds it.
    supervised.expect_said("unfinished: held ")
    holders = [holder for (holder,) in rows(flows_dsn, "worker_id")]
    assert (lost in holders) is not is_rescued


def test_hosts_are_looked_for_more_often_than_leases_are_renewed(app: StartApp) -> None:
    supervised = app("--only", "held")
    supervised.expect_said("worker held ready")

    def lease() -> object:
        live = "SELECT max(lease_expires_at) FROM flows.workers WHERE host <> 'elsewhere'"
        return execute(supervised.dsn, live)[0][0]

    before = lease()
    wait_until(lambda: lease() != before, what="the lease is renewed")
    renewed, lost = lease(), uuid.uuid4()
    execute(
        supervised.dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        " VALUES (%s, ARRAY['elsewhere'], 'elsewhere', 1, now() - interval '1 s')",
        lost,
    )
    judged = "SELECT 1 FROM flows.workers WHERE worker_id = %s AND stopped_at IS NOT NULL"
    wait_until(lambda: execute(supervised.dsn, judged, lost), what="the lost host is judged")
    assert lease() == renewed


def test_a_supervisor_outlives_a_worker_and_maintenance_that_die_at_once(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    supervised.expect_said("maintenance ready")
    maintenance = child_titled(supervised, "flows: maintenance")
    # It learns of both deaths in one look, and of the worker's first.
    supervised.send(signal.SIGSTOP)
    os.waitpid(supervised.pid, os.WUNTRACED)
    for pid in (first["pid"], maintenance):
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid, what="the killed child")
    supervised.send(signal.SIGCONT)
    second = supervised.expect("executing", "held")
    assert second["run"] == first["run"]
    supervised.expect_said("worker held: 1 run given back")
    assert supervised.process.poll() is None


def completed(supervised: Supervised) -> int:
    return int(
        execute(supervised.dsn, "SELECT count(*) FROM flows.runs WHERE status = 'completed'")[0][0]
    )


def schedule(supervised: Supervised, workflow: str = "double") -> None:
    with psycopg.connect(supervised.dsn) as tx:
        Client().schedule_tx(tx, workflow, 21, workflow, every(timedelta(milliseconds=100)))


def test_schedules_are_fired_by_maintenance_and_by_nobody_else(app: StartApp) -> None:
    supervised = app("--only", "double", "--only", "report")
    supervised.expect_said("worker double ready")
    schedule(supervised)
    wait_until(lambda: completed(supervised) >= 3, what="three ticks ran")
    schedulers = execute(
        supervised.dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flows scheduler'"
        " AND datname = current_database()",
    )
    assert schedulers == [(1,)]


def test_schedules_are_fired_again_when_maintenance_was_killed(app: StartApp) -> None:
    supervised = app("--only", "double")
    supervised.expect_said("worker double ready")
    schedule(supervised)
    wait_until(lambda: completed(supervised) >= 2, what="two ticks ran")
    os.kill(child_titled(supervised, "flows: maintenance"), signal.SIGKILL)
    supervised.expect_said("maintenance ready")
    before = completed(supervised)
    wait_until(lambda: completed(supervised) >= before + 3, what="three more ticks ran")
    # However often it was killed in the middle, no tick has two runs.
    ids = execute(supervised.dsn, "SELECT count(*), count(DISTINCT run_id) FROM flows.runs")
    assert ids[0][0] == ids[0][1]


def test_a_schedule_that_cannot_be_fired_is_told(app: StartApp) -> None:
    supervised = app("--only", "double")
    supervised.expect_said("maintenance ready")
    schedule(supervised)
    execute(supervised.dsn, "UPDATE flows.schedules SET cron_expr = 'x', next_run_at = now()")
    supervised.expect_said("schedule double cannot be fired: disabled: cron expression 'x'")


def test_a_run_is_deleted_when_its_workflow_keeps_it_no_longer(app: StartApp) -> None:
    supervised = app("--only", "fleeting")
    begin(supervised.dsn, "fleeting")
    wait_until(
        lambda: (
            execute(
                supervised.dsn,
                "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'runs' AND n_tup_del > 0",
            )
            and not rows(supervised.dsn)
        ),
        what="the run is gone",
    )
    assert rows(supervised.dsn) == []
