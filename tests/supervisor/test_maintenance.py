"""The maintenance process keeps leases and gives back the runs of the dead."""

from __future__ import annotations

import os
import signal
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, DBConfig, every
from flows.database import connect
from flows.supervisor.draining import DrainWatch
from flows.supervisor.maintenance import MaintenanceProgram, _Maintenance
from flows.supervisor.messages import Count, Counted, Message, Prepared
from tests.supervisor.harness import Supervised, begin, child_titled, execute, rows
from tests.waiting import wait_until, wait_until_gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.supervisor.conftest import StartApp, StartSource

INSERT_RUNNING = """
    INSERT INTO flows.runs
        (workflow_name_shard, run_id, workflow_name, status, claim, worker_id, input_json)
    VALUES ('held_0', %s, 'held', 'running', 1, %s, to_jsonb(%s::text))
"""


REFUSE_CRASHES = """
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'no crashes'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON flows.crashes
        FOR EACH ROW EXECUTE FUNCTION public.refuse();
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


class Told:
    """The end of a maintenance process that keeps what it sends."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    @property
    def channel(self) -> Told:
        return self

    def send(self, message: Message) -> None:
        self.sent.append(message)


def test_a_count_that_the_database_refuses_is_answered_and_costs_no_connection(
    flows_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: DrainWatch, connection: Any) -> Any:
        connection.execute("SELECT 1 / 0")

    monkeypatch.setattr(DrainWatch, "unfinished", refuse)
    program = MaintenanceProgram(flows_dsn, None, DBConfig(), uuid.uuid4(), (), 1.0, None)
    end: Any = Told()
    maintenance = _Maintenance(program, Prepared(datetime(2026, 1, 1, tzinfo=UTC)), end)
    maintenance._asked.append(Count(("demo",)))
    with connect(flows_dsn) as connection:
        maintenance._work(connection)
    assert end.sent == [Counted({}, "division by zero")]
    assert maintenance._asked == []


def test_what_cannot_be_released_costs_nobody_a_lease_and_is_released_once_it_can(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held", "--only", "double")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    supervised.expect_said("maintenance ready")
    supervised.expect_said("worker double ready")
    execute(supervised.dsn, REFUSE_CRASHES)
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect_said("maintenance: runs of a dead worker cannot be given back: no crashes")
    execute(supervised.dsn, "UPDATE flows.workers SET lease_expires_at = now() + '9 s'")
    lost = uuid.uuid4()
    execute(
        supervised.dsn,
        "INSERT INTO flows.workers (worker_id, workflow_names, host, pid, lease_expires_at)"
        " VALUES (%s, ARRAY['elsewhere'], 'elsewhere', 1, now() - interval '1 s')",
        lost,
    )
    judged = "SELECT stopped_at FROM flows.workers WHERE worker_id = %s AND stopped_at IS NOT NULL"
    wait_until(lambda: execute(supervised.dsn, judged, lost), what="a lost host is judged")
    renewed = (
        "SELECT bool_and(lease_expires_at > now() + '10 s') FROM flows.workers"
        " WHERE host <> 'elsewhere' AND stopped_at IS NULL AND pid <> %s"
    )
    wait_until(
        lambda: execute(supervised.dsn, renewed, first["pid"])[0][0], what="the others' are renewed"
    )
    # That of the dead one is not: its end would release what nothing else can.
    dead = "SELECT lease_expires_at < now() + '10 s' FROM flows.workers WHERE pid = %s"
    assert execute(supervised.dsn, dead, first["pid"]) == [(True,)]
    execute(supervised.dsn, "DROP TRIGGER refuse ON flows.crashes")
    supervised.expect_said("worker held: 1 run given back")
    assert supervised.expect("executing", "held")["run"] == first["run"]
    assert "trying until it works" not in supervised.stderr
    assert supervised.stderr.count("cannot be given back") == 1


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


KEEPS_LITTLE = """
from datetime import timedelta
from flows import Registry
registry = Registry()
for name in ('a-good', 'b-odd'):
    registry.workflow(name, retention=timedelta(milliseconds=1))(lambda wf: None)
"""
REFUSE_DELETION = """
    CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'stays'; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON flows.runs
        FOR EACH ROW WHEN (OLD.workflow_name = 'b-odd') EXECUTE FUNCTION public.refuse();
"""


def test_runs_that_cannot_be_deleted_do_not_keep_those_of_other_workflows(
    supervise: StartSource, flows_dsn: str
) -> None:
    execute(flows_dsn, REFUSE_DELETION)
    for name in ("a-good", "b-odd"):
        begin(flows_dsn, name)
    supervised = supervise(KEEPS_LITTLE)
    supervised.expect_said("runs that are kept no longer stay: stays")
    wait_until(
        lambda: rows(flows_dsn, "workflow_name, status") == [("b-odd", "completed")],
        what="the other's run is gone",
    )
    assert supervised.stderr.count("runs that are kept no longer stay") == 1


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
