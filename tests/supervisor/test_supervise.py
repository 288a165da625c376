"""`flows supervise` with real workflows on a real database."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows import clock
from flows.leases import LEASE
from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import APP, FLOWS, ROOT, Supervised, begin, execute, rows, title_of
from tests.waiting import DEADLINE_S, wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartApp


LEASE_S = clock.seconds(LEASE)
"""What is taken up sooner was given back by somebody."""


def expect_ready(supervised: Supervised, *names: str) -> None:
    for name in names:
        supervised.expect_said(f"worker {name} ready")


def test_begun_runs_are_drained_and_their_outputs_printed(app: StartApp) -> None:
    supervised = app("--begin", 'report={"name": "bolt", "count": 2}', "--begin", "double=21")
    # Without --drain it goes on until it is told to stop.
    wait_until(
        lambda: [row[1] for row in rows(supervised.dsn)] == ["completed"] * 2,
        what="both runs are completed",
    )
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stdout == ""


def test_a_drain_ends_by_itself_and_prints_tables(app: StartApp) -> None:
    supervised = app(
        "--drain", "--begin", 'report={"name": "bolt", "count": 2}', "--begin", "double=21"
    )
    assert supervised.wait() == ExitCode.OK, supervised.stderr
    lines = [line.rstrip() for line in supervised.stdout.splitlines()]
    assert "name  bolt" in lines
    assert "item   row" in lines
    assert "bolt     1" in lines
    assert lines[-1] == "42"
    assert "drained: stopping" in supervised.stderr


def test_a_drain_waits_for_runs_that_sleep(app: StartApp) -> None:
    supervised = app("--drain", "--begin", "napping", "--only", "napping")
    assert supervised.wait() == ExitCode.OK
    assert rows(supervised.dsn) == [("napping", "completed", 0)]
    assert supervised.stdout.endswith("rested\n")


def test_a_drain_of_nothing_ends_at_once(app: StartApp) -> None:
    assert app("--drain").wait() == ExitCode.OK


def test_a_run_that_fails_in_a_drain_gives_exit_code_1(app: StartApp) -> None:
    supervised = app("--drain", "--begin", 'failing="boom"', "--begin", "double=1")
    assert supervised.wait() == ExitCode.FAILED
    assert "with failed runs (failing 1)" in supervised.stderr
    assert "boom" in supervised.stderr
    assert supervised.stdout.endswith("2\n")


def test_a_run_that_failed_leaves_no_gap_between_the_outputs_of_others(app: StartApp) -> None:
    supervised = app(
        "--drain",
        *("--begin", 'failing="boom"', "--begin", "double=1"),
        *("--begin", 'failing="bang"', "--begin", "double=2", "--begin", 'failing="last"'),
    )
    assert supervised.wait() == ExitCode.FAILED
    [first, one, gap, second, two] = supervised.stdout.splitlines()
    assert (first[:7], one, gap, second[:7], two) == ("double ", "2", "", "double ", "4")


def test_a_run_that_failed_before_a_drain_is_not_charged_to_it(app: StartApp) -> None:
    assert app("--drain", "--begin", 'failing="boom"').wait() == ExitCode.FAILED
    assert app("--drain", "--begin", "double=1").wait() == ExitCode.OK


def test_a_killed_childs_runs_are_executing_again_at_once(
    app: StartApp, gate: Path, record_property: Any
) -> None:
    supervised = app("--only", "held")
    expect_ready(supervised, "held")
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    killed_s = clock.monotonic()
    os.kill(first["pid"], signal.SIGKILL)
    second = supervised.expect("executing", "held")
    took_s = clock.monotonic() - killed_s
    record_property("seconds_to_executing_again", took_s)
    assert second["run"] == first["run"]
    assert second["pid"] != first["pid"]
    assert took_s < LEASE_S
    gate.write_text("go")
    wait_until(
        lambda: rows(supervised.dsn) == [("held", "completed", 0)], what="the run is completed"
    )


def test_a_run_whose_transaction_was_open_is_executing_again_too(app: StartApp, gate: Path) -> None:
    supervised = app("--only", "held-in-transaction")
    begin(supervised.dsn, "held-in-transaction", str(gate))
    first = supervised.expect("executing", "held-in-transaction")
    killed_s = clock.monotonic()
    os.kill(first["pid"], signal.SIGKILL)
    second = supervised.expect("executing", "held-in-transaction")
    assert clock.monotonic() - killed_s < LEASE_S
    assert second["run"] == first["run"]


def test_term_lets_running_runs_finish_and_begins_no_others(app: StartApp, gate: Path) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    supervised.send(signal.SIGTERM)
    supervised.expect_said("received SIGTERM: stopping, for at most 30 s")
    dispatchers = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'flows dispatcher'"
    )
    wait_until(
        lambda: execute(supervised.dsn, dispatchers) == [(0,)], what="the worker claims no more"
    )
    begin(supervised.dsn, "held", str(gate))
    gate.write_text("go")
    assert supervised.wait() == ExitCode.OK
    assert rows(supervised.dsn) == [("held", "completed", 0), ("held", "queued", 0)]


def test_a_run_that_outlives_the_grace_period_is_given_back(app: StartApp, gate: Path) -> None:
    supervised = app("--only", "held", "--grace", "0.1")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert rows(supervised.dsn) == [("held", "queued", 0)]


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGQUIT]])
def test_stopping_at_once_leaves_runs_to_be_taken_up_again(
    app: StartApp, gate: Path, signals: list[signal.Signals]
) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    # Who else could give the run back before the end?
    supervised.expect_said("maintenance ready")
    for signum in signals:
        supervised.send(signum)
        supervised.expect_said(f"received {signum.name}")
    assert supervised.wait() == ExitCode.OK
    assert rows(supervised.dsn) == [("held", "queued", 0)]
    again = app("--only", "held")
    again.expect("executing", "held")


def test_a_killed_supervisor_takes_its_children_along_and_keeps_the_run(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "held")
    begin(supervised.dsn, "held", str(gate))
    worker = supervised.expect("executing", "held")
    supervised.send(signal.SIGKILL)
    supervised.wait()
    wait_until_gone(worker["pid"], what="the worker", timeout_s=1.0)
    assert rows(supervised.dsn) == [("held", "running", 0)]


def test_a_workflow_that_kills_its_process_is_broken_and_others_go_on(app: StartApp) -> None:
    supervised = app("--only", "deadly", "--only", "double", "--begin", "deadly")
    supervised.expect_said("workflow deadly is broken")
    begin(supervised.dsn, "double", 4)
    wait_until(
        lambda: ("double", "completed", 0) in rows(supervised.dsn), what="another run is completed"
    )


def test_only_the_workflows_named_are_run(app: StartApp) -> None:
    supervised = app("--only", "double", "--only", "report")
    expect_ready(supervised, "double", "report [1/2]", "report [2/2]")
    supervised.expect_said("maintenance ready")
    assert "worker held" not in supervised.stderr
    assert title_of(supervised.pid) == "flows: supervisor tests.supervisor.app:registry"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_supervisor_has_one_thread_and_no_connection(app: StartApp) -> None:
    supervised = app("--begin", "double=1", "--only", "double", "--only", "report")
    expect_ready(supervised, "double", "report [1/2]", "report [2/2]")
    supervised.expect_said("maintenance ready")
    process = Path(f"/proc/{supervised.pid}")
    assert len(list((process / "task").iterdir())) == 1
    held = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
    # One to each child, one for requests to the template, one for commands, none to the server.
    assert sum(each.startswith("socket:") for each in held) == 7


def test_a_wrong_begin_begins_nothing_and_is_named(app: StartApp) -> None:
    supervised = app("--begin", "double=1", "--begin", 'report={"name": 1}')
    assert supervised.wait() == ExitCode.CONFIG
    assert "--begin report" in supervised.stderr
    assert "Traceback" not in supervised.stderr
    assert rows(supervised.dsn) == []


def test_without_a_database_the_embedded_one_is_started_migrated_and_kept(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flows import Registry\n"
        "registry = Registry()\n"
        "@registry.workflow('greet')\n"
        "def greet(wf, name): return f'hello {name}'\n"
    )
    environment = {"FLOWS_DATABASE_URL": "", "DATABASE_URL": "", "PYTHONPATH": str(ROOT)}
    command = [*FLOWS, "supervise", "shop:registry", "--drain"]
    begin_one = ["--begin", 'greet="you"']
    first = Supervised([*command, *begin_one], tmp_path, cwd=tmp_path, env=environment)
    assert first.wait() == ExitCode.OK, first.stderr
    assert first.stdout.endswith("hello you\n")
    assert "supervising shop:registry on the embedded database" in first.stderr
    first.end()
    again = Supervised(command, tmp_path, cwd=tmp_path, env=environment)
    assert again.wait() == ExitCode.OK, again.stderr
    again.end()


def test_progress_on_a_terminal_is_a_bar_and_results_are_not_part_of_it(
    flows_dsn: str, tmp_path: Path
) -> None:
    master, slave = pty.openpty()
    command = [*FLOWS, "supervise", APP, "--dsn", flows_dsn, "--drain", "--only", "napping"]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*command, "--begin", "napping"],
            cwd=ROOT,
            stdin=slave,
            stdout=out,
            stderr=slave,
            env={**os.environ, "FLOWS_DIARY_FD": "2", "TERM": "xterm", "COLUMNS": "100"},
        )
    os.close(slave)
    shown = read_to_end(master)
    assert process.wait(DEADLINE_S) == ExitCode.OK, shown
    assert "draining" in shown
    assert "napping 1 sleeping" in shown
    assert "flows: drained: stopping" in shown
    assert (tmp_path / "out").read_text().endswith("rested\n")


def read_to_end(terminal: int) -> str:
    shown = b""
    # Linux answers EIO once nobody has the other end open.
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    return shown.decode()
