"""A supervisor serves its numbers, and they outlive whoever counts and serves them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from flows.metrics import BY_NAME
from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import begin, child_titled, execute
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartApp, StartSource
    from tests.supervisor.harness import Supervised

ANYWHERE = ("--metrics", "127.0.0.1:0")

Samples = dict[tuple[str, ...], float]
"""Values, by name and labels."""


def address_of(supervised: Supervised) -> tuple[str, int]:
    supervised.expect_said("metrics are served at ")
    found = re.search(r"http://([\d.]+):(\d+)/metrics", supervised.stderr)
    assert found is not None
    return found[1], int(found[2])


def get(supervised: Supervised, path: str) -> tuple[int, str]:
    """Return status and body; asks again where the process that serves has just died."""

    def answer() -> tuple[int, str] | None:
        connection = http.client.HTTPConnection(*address_of(supervised), timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (ConnectionError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    answered = wait_until(answer, what=f"{path} is answered")
    assert answered is not None
    return answered


def scrape(supervised: Supervised) -> Samples:
    status, body = get(supervised, "/metrics")
    assert status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def wait_for(supervised: Supervised, expected: Samples) -> Samples:
    """Wait until these values are served, and return all."""
    found: Samples = {}

    def arrived() -> bool:
        found.update(scrape(supervised))
        return expected.items() <= found.items()

    wait_until(arrived, what=f"{expected} is served")
    return found


def wait_for_ready(supervised: Supervised) -> None:
    wait_until(lambda: get(supervised, "/ready") == (200, "ready\n"), what="it is ready")


def test_every_metric_is_served_with_what_was_counted(app: StartApp) -> None:
    supervised = app(*ANYWHERE, "--only", "double", "--only", "failing")
    for number in range(3):
        begin(supervised.dsn, "double", number)
    begin(supervised.dsn, "failing", "boom")
    found = wait_for(
        supervised,
        {
            ("flows_runs_ended_total", "completed", "double"): 3,
            ("flows_runs_ended_total", "failed", "double"): 0,
            ("flows_runs_ended_total", "failed", "failing"): 1,
            ("flows_attempt_seconds_count", "double"): 3,
            ("flows_step_seconds_count", "double/v1", "double"): 3,
            ("flows_step_seconds_bucket", "+Inf", "double/v1", "double"): 3,
            ("flows_processes", "ready", "double"): 1,
            ("flows_processes", "broken", "double"): 0,
            ("flows_crashes_total", "double"): 0,
            ("flows_maintenance_restarts_total",): 0,
            ("flows_database_up",): 1,
        },
    )
    assert found["flows_claim_seconds_count", "double"] >= 1
    assert 1 <= found["flows_commit_group_runs_count", "double"] <= 6
    assert found["flows_commit_seconds_count", "double"] >= 1
    families = text_string_to_metric_families(get(supervised, "/metrics")[1])
    kinds = {family.name: family.type for family in families}
    assert kinds == {name.removesuffix("_total"): each.kind for name, each in BY_NAME.items()}


def test_counters_outlive_the_processes_that_count_and_serve(app: StartApp) -> None:
    supervised = app(*ANYWHERE, "--only", "frugal")
    # Each process of this workflow is replaced after three runs.
    for _ in range(4):
        begin(supervised.dsn, "frugal", None)
    ended = ("flows_runs_ended_total", "completed", "frugal")
    wait_for(supervised, {ended: 4})
    os.kill(child_titled(supervised, "flows: maintenance"), signal.SIGKILL)
    wait_for(supervised, {ended: 4, ("flows_maintenance_restarts_total",): 1})
    begin(supervised.dsn, "frugal", None)
    wait_for(supervised, {ended: 5, ("flows_database_up",): 1})


def test_a_crash_and_the_recovery_from_it_are_counted(app: StartApp, gate: Path) -> None:
    supervised = app(*ANYWHERE, "--only", "held")
    begin(supervised.dsn, "held", str(gate))
    wait_for_ready(supervised)
    os.kill(supervised.expect("executing", "held")["pid"], signal.SIGKILL)
    supervised.expect("executing", "held")
    gate.write_text("pass")
    found = wait_for(
        supervised,
        {
            ("flows_crashes_total", "held"): 1,
            ("flows_restarts_total", "held"): 1,
            ("flows_recovery_seconds_count", "held"): 1,
            ("flows_runs_ended_total", "completed", "held"): 1,
        },
    )
    assert 0 < found["flows_recovery_seconds_sum", "held"] < DEADLINE_S


def test_a_run_that_ends_its_process_too_often_counts_as_failed(app: StartApp) -> None:
    supervised = app(*ANYWHERE, "--only", "poisoned")
    begin(supervised.dsn, "poisoned", -1)
    wait_for(
        supervised,
        {
            ("flows_runs_ended_total", "failed", "poisoned"): 1,
            ("flows_crashes_total", "poisoned"): 3,
        },
    )


def test_runs_that_nobody_takes_are_seen_in_the_queue(
    app: StartApp, flows_dsn: str, gate: Path
) -> None:
    for _ in range(20):
        begin(flows_dsn, "held", str(gate))
    execute(flows_dsn, "UPDATE flows.runs SET created_at = now() - interval '1 hour'")
    supervised = app(*ANYWHERE, "--only", "held")
    found = wait_for(supervised, {("flows_database_up",): 1})
    # Some may be taken already.
    assert 1 <= found["flows_queue_runs", "held"] <= 20
    assert 3600 <= found["flows_queue_oldest_seconds", "held"] < 7200


def test_a_supervisor_that_stops_is_live_and_not_ready(app: StartApp, gate: Path) -> None:
    supervised = app(*ANYWHERE, "--only", "held")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    wait_for_ready(supervised)
    supervised.send(signal.SIGTERM)
    wait_until(
        lambda: get(supervised, "/ready") == (503, "the supervisor is stopping\n"),
        what="it is not ready any more",
    )
    assert get(supervised, "/live") == (200, "live\n")
    assert get(supervised, "/elsewhere")[0] == 404
    host, port = address_of(supervised)
    gate.write_text("pass")
    assert supervised.wait() == ExitCode.OK
    socket.create_server((host, port)).close()


def test_a_workflow_that_is_broken_is_named(app: StartApp) -> None:
    supervised = app(*ANYWHERE, "--only", "deadly", "--only", "double")
    wait_for_ready(supervised)
    begin(supervised.dsn, "deadly")
    supervised.expect_said("workflow deadly is broken")
    wait_for(
        supervised,
        {("flows_processes", "broken", "deadly"): 1, ("flows_restarts_total", "deadly"): 5},
    )
    assert get(supervised, "/ready") == (503, "workflow deadly: no process can claim\n")


def test_only_those_who_serve_hold_the_port(app: StartApp, gate: Path) -> None:
    supervised = app(*ANYWHERE, "--only", "held")
    begin(supervised.dsn, "held", str(gate))
    worker = supervised.expect("executing", "held")["pid"]
    wait_for_ready(supervised)
    _, port = address_of(supervised)
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    [inode] = [row[9] for row in table if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"]

    def holds(pid: int) -> bool:
        return f"socket:[{inode}]" in {
            os.readlink(fd)  # noqa: PTH115  its target is no path
            for fd in Path(f"/proc/{pid}/fd").iterdir()
        }

    template = child_titled(supervised, "flows: template tests.supervisor.app:registry")
    maintenance = child_titled(supervised, "flows: maintenance")
    holders = [holds(pid) for pid in (supervised.pid, maintenance, template, worker)]
    assert holders == [True, True, False, False]


def test_a_port_that_is_taken_ends_the_start_before_anything_is_imported(
    supervise: StartSource,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        supervised = supervise("raise ValueError('imported')", "--metrics", address)
        assert supervised.wait() == ExitCode.CONFIG
    assert supervised.stderr.splitlines() == [
        f"flows: error: --metrics {address}: cannot listen there: Address already in use"
    ]


def test_without_the_option_nothing_is_measured(app: StartApp) -> None:
    supervised = app("--only", "double", "--drain", "--begin", "double=1")
    assert supervised.wait() == ExitCode.OK
    assert "metrics" not in supervised.stderr


def test_a_drain_ends_with_metrics_too(app: StartApp) -> None:
    supervised = app(*ANYWHERE, "--drain", "--begin", "double=1", "--only", "double")
    assert supervised.wait() == ExitCode.OK
    assert supervised.stdout.endswith("2\n")
