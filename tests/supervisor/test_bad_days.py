"""What may happen to processes of a real application, on a real database."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import (
    APP,
    FLOWS,
    GREET,
    ROOT,
    begin,
    child_titled,
    execute,
    rows,
    title_of,
)
from tests.waiting import DEADLINE_S, process_exists, wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartApp, StartSource
    from tests.supervisor.harness import Supervised


@pytest.mark.parametrize(
    ("workflow", "said"),
    [("faulty", "died by SIGSEGV; restarting now"), ("stalled", "died by SIGKILL; restarting now")],
)
def test_a_run_whose_process_died_is_done_by_the_next_one(
    app: StartApp, tmp_path: Path, workflow: str, said: str
) -> None:
    supervised = app("--only", workflow)
    begin(supervised.dsn, workflow, str(tmp_path / "marker"))
    first = supervised.expect("executing", workflow)
    second = supervised.expect("executing", workflow)
    assert second["pid"] != first["pid"]
    supervised.expect_said(said)
    wait_until(lambda: rows(supervised.dsn) == [(workflow, "completed", 0)], what="it is done")


def test_a_process_that_runs_no_python_is_killed_where_that_is_configured(
    app: StartApp, tmp_path: Path
) -> None:
    supervised = app("--only", "stalled")
    begin(supervised.dsn, "stalled", str(tmp_path / "marker"))
    supervised.expect("executing", "stalled")
    supervised.expect_said("no Python has run for")
    line = next(each for each in supervised.stderr.splitlines() if "no Python" in each)
    assert "(step stall/v1): killing it" in line


def test_a_busy_step_is_left_alone(app: StartApp) -> None:
    supervised = app("--only", "busy")
    begin(supervised.dsn, "busy", 4.0)
    started = supervised.expect("executing", "busy")
    wait_until(
        lambda: title_of(started["pid"]) == "flows: worker busy, 1 of 1 busy",
        what="its title says that it is busy",
    )
    wait_until(
        lambda: rows(supervised.dsn, "status, output_json") == [("completed", started["pid"])],
        what="the busy run has completed in its first process",
    )
    wait_until(
        lambda: title_of(started["pid"]) == "flows: worker busy", what="its title is the plain one"
    )
    assert "no Python" not in supervised.stderr


def test_an_idle_process_does_not_seem_to_hang(app: StartApp) -> None:
    supervised = app("--only", "busy")
    supervised.expect_said("worker busy ready")
    # Longer than its hang_timeout, and than two looks at it.
    with pytest.raises(AssertionError):
        supervised.expect_said("no Python", timeout_s=8)


def test_a_process_with_a_stuck_thread_is_replaced_and_its_other_runs_finish(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "stuck")
    begin(supervised.dsn, "stuck", str(gate))
    sibling = supervised.expect("executing", "stuck")
    begin(supervised.dsn, "stuck", "")
    first = supervised.expect("executing", "stuck")
    assert first["pid"] == sibling["pid"]
    supervised.expect_said("did not end within 5 s of being told to", timeout_s=30)
    supervised.expect_said("replaced: finishing its runs", timeout_s=30)
    assert process_exists(first["pid"])
    gate.write_text("go")
    wait_until_gone(first["pid"], what="the process with the stuck thread", timeout_s=30)
    wait_until(
        lambda: rows(supervised.dsn) == [("stuck", "completed", 0), ("stuck", "completed", 1)],
        what="both are done",
        timeout_s=30,
    )


def test_a_thread_that_is_given_up_while_stopping_brings_no_process_that_claims(
    app: StartApp,
) -> None:
    supervised = app("--only", "stuck", "--grace", "8")
    begin(supervised.dsn, "stuck", "")
    supervised.expect("executing", "stuck")
    supervised.send(signal.SIGTERM)
    supervised.expect_said("did not end within 5 s of being told to", timeout_s=30)
    assert supervised.wait() == ExitCode.OK
    assert supervised.stderr.count("worker stuck started") == 1
    # Its second attempt is due, and left to the next supervisor.
    assert rows(supervised.dsn) == [("stuck", "sleeping", 1)]


def test_a_drain_until_all_is_done_replaces_a_process_with_a_stuck_thread(
    app: StartApp, gate: Path
) -> None:
    begins = ("--begin", f'stuck="{gate}"', "--begin", 'stuck=""')
    supervised = app("--only", "stuck", "--drain", *begins)
    supervised.expect("executing", "stuck")
    supervised.expect_said("replaced: finishing its runs", timeout_s=30)
    gate.write_text("go")
    assert supervised.wait() == ExitCode.OK
    assert supervised.stderr.count("worker stuck started") == 2
    assert sorted(rows(supervised.dsn, "status, attempts")) == [("completed", 0), ("completed", 1)]


def test_a_process_that_keeps_the_lock_over_a_deadline_is_killed(
    app: StartApp, tmp_path: Path
) -> None:
    supervised = app("--only", "deaf")
    begin(supervised.dsn, "deaf", str(tmp_path / "marker"))
    first = supervised.expect("executing", "deaf")
    supervised.expect_said("no Python has run since the time of step deaf/v1 of run", timeout_s=40)
    wait_until_gone(first["pid"], what="the deaf process")
    causes = wait_until(
        lambda: execute(supervised.dsn, "SELECT cause FROM flows.crashes"), what="it is charged"
    )
    assert causes[0][0].startswith("SIGKILL (no Python has run since the time of step deaf/v1")
    wait_until(
        lambda: rows(supervised.dsn) == [("deaf", "completed", 0)], what="it is done", timeout_s=30
    )


def test_memory_that_is_refused_fails_the_run_and_not_the_process(
    app: StartApp, tmp_path: Path
) -> None:
    supervised = app("--only", "greedy")
    begin(supervised.dsn, "greedy", str(tmp_path / "marker"))
    worker = supervised.expect("executing", "greedy")
    wait_until(lambda: rows(supervised.dsn) == [("greedy", "failed", 1)], what="it has failed")
    assert "MemoryError" in execute(supervised.dsn, "SELECT error_text FROM flows.runs")[0][0]
    assert process_exists(worker["pid"])


def test_a_stopped_process_is_not_killed_and_goes_on(app: StartApp) -> None:
    supervised = app("--only", "double")
    supervised.expect_said("worker double ready")
    worker = child_titled(supervised, "flows: worker double")
    os.kill(worker, signal.SIGSTOP)
    begin(supervised.dsn, "double", 4)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: rows(supervised.dsn) == [("double", "completed", 0)], what="it is done")
    assert process_exists(worker)


def test_a_process_is_replaced_after_so_many_runs_and_none_is_interrupted(
    app: StartApp, gate: Path
) -> None:
    supervised = app("--only", "frugal")
    begin(supervised.dsn, "frugal", str(gate))
    first = supervised.expect("executing", "frugal")
    # It goes on with what it executes, and with nothing else, after its third run.
    gate.write_text("go")
    for _ in range(2):
        begin(supervised.dsn, "frugal")
        assert supervised.expect("executing", "frugal")["pid"] == first["pid"]
    supervised.expect_said("has finished 3 runs: replacing it")
    supervised.expect_said("replaced: finishing its runs")
    wait_until_gone(first["pid"], what="the process before")
    begin(supervised.dsn, "frugal")
    assert supervised.expect("executing", "frugal")["pid"] != first["pid"]
    assert "restarting" not in supervised.stderr


def test_a_worker_that_was_asked_to_finish_has_not_crashed(app: StartApp) -> None:
    supervised = app("--only", "double")
    # Oftener than its process may crash.
    for number in range(1, 9):
        wait_for_starts(supervised, number)
        os.kill(child_titled(supervised, "flows: worker double"), signal.SIGTERM)
    assert "broken" not in supervised.stderr


def wait_for_starts(supervised: Supervised, number: int) -> None:
    wait_until(
        lambda: supervised.stderr.count("worker double ready") == number,
        what=f"{number} processes have become ready",
    )


def test_two_supervisors_share_the_work_of_one_database(
    supervise: StartSource,
) -> None:
    one, other = supervise(GREET), supervise(GREET)
    for each in (one, other):
        each.expect_said("worker greet ready")
        each.expect_said("maintenance ready")
    for number in range(20):
        begin(one.dsn, "greet", number)
    one.send(signal.SIGKILL)
    one.wait()
    wait_until(
        lambda: {row[1] for row in rows(other.dsn)} == {"completed"},
        what="all runs are completed",
    )
    assert "error" not in other.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('no way')", "importing shop failed: ValueError: no way"),
        ("import sys; sys.exit(5)", "importing shop failed: SystemExit: 5"),
        ("import os; os._exit(5)", "the process that imports the application exited with code 5"),
        ("import os; os.kill(os.getpid(), 11)", "imports the application died by SIGSEGV"),
        ("import os; os.abort()", "imports the application died by SIGABRT"),
    ],
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_import_that_fails_in_any_way_ends_the_start_with_its_own_code(
    supervise: StartSource, source: str, said: str, method: str
) -> None:
    supervised = supervise(source, "--start-method", method)
    assert supervised.wait() == ExitCode.CONFIG
    assert said in supervised.stderr
    assert "Traceback" not in supervised.stderr


def test_what_an_import_prints_and_opens_is_told_and_not_used(
    supervise: StartSource, flows_dsn: str
) -> None:
    source = f"""
import threading, psycopg
print('imported')
connection = psycopg.connect({flows_dsn!r}, application_name='of the import')
threading.Thread(target=threading.Event().wait, name='sampler', daemon=True).start()
{GREET}
"""
    supervised = supervise(source, "--begin", 'greet="you"', "--drain")
    assert supervised.wait() == ExitCode.OK
    assert supervised.stdout.endswith("hello you\n")
    assert "imported" not in supervised.stdout
    assert "template shop:registry | imported" in supervised.stderr
    assert "has started the thread sampler, which no worker will have" in supervised.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_both_start_methods_execute_runs_and_follow_the_code(
    supervise: StartSource, method: str
) -> None:
    supervised = supervise(GREET, "--start-method", method)
    supervised.expect_said("worker greet ready")
    worker = child_titled(supervised, "flows: worker greet")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: supervised.stderr.count("worker greet ready") == 2, what="it is replaced")
    shop = Path(f"/proc/{supervised.pid}/cwd").resolve() / "shop.py"
    shop.write_text(GREET.replace("hello", "good morning"))
    supervised.send(signal.SIGHUP)
    supervised.expect_said("reloaded in")
    begin(supervised.dsn, "greet", "you")
    wait_until(
        lambda: rows(supervised.dsn, "output_json") == [("good morning you",)],
        what="the new code has run",
    )
    shop.write_text("def broken(:")
    supervised.send(signal.SIGHUP)
    supervised.expect_said("reload aborted, the code before it goes on: importing shop failed")
    begin(supervised.dsn, "greet", "again")
    wait_until(
        lambda: ("good morning again",) in rows(supervised.dsn, "output_json"),
        what="the code before goes on",
    )
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_no_preload_is_the_same_as_spawn(supervise: StartSource) -> None:
    supervised = supervise(GREET, "--no-preload")
    supervised.expect_said("worker greet ready")
    children = Path(f"/proc/{supervised.pid}/task/{supervised.pid}/children").read_text().split()
    assert sorted(title_of(int(pid)) for pid in children) == [
        "flows: maintenance",
        "flows: worker greet",
    ]


def test_systemd_hears_of_readiness_and_the_end(
    supervise: StartSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"flows-systemd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.settimeout(DEADLINE_S)
        hears.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        source = GREET + "import os\ngreet_with = os.environ.get('NOTIFY_SOCKET', 'nothing')\n"
        supervised = supervise(source.replace("hello {name}", "heard {greet_with}"))
        heard: list[str] = []

        def hear(wanted: str) -> None:
            while not any(wanted in each for each in heard):
                heard.append(hears.recv(4096).decode())

        hear("READY=1\nSTATUS=1 workflows, 1 processes\nMAINPID=")
        hear("WATCHDOG=1")
        assert f"MAINPID={supervised.pid}" in "".join(heard)
        supervised.send(signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("STATUS=generation 2")
        begin(supervised.dsn, "greet", "you")
        wait_until(
            # The socket is the supervisor's alone.
            lambda: rows(supervised.dsn, "output_json") == [("heard nothing",)],
            what="the run is completed",
        )
        supervised.send(signal.SIGTERM)
        hear("STOPPING=1\nSTATUS=received SIGTERM")
    assert supervised.wait() == ExitCode.OK


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a namespace of processes"
)
def test_as_process_1_of_a_container_it_reaps_what_others_leave(
    supervise: StartSource,
) -> None:
    source = """
import subprocess
from flows import Registry
registry = Registry()
@registry.workflow('litter')
def litter(wf, number):
    # Its parent is gone at once: an orphan, and soon a zombie.
    subprocess.run(['/bin/sh', '-c', '(setsid sleep 0.01 &)'], check=True)
    return open('/proc/sys/kernel/ns_last_pid').read()
"""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    supervised = supervise(source, prefix=prefix)
    supervised.expect_said("worker litter ready")
    for number in range(10):
        begin(supervised.dsn, "litter", number)
    wait_until(
        lambda: [row[1] for row in rows(supervised.dsn)] == ["completed"] * 10, what="all is done"
    )
    inner = int(Path(f"/proc/{supervised.pid}/task/{supervised.pid}/children").read_text())
    assert title_of(inner) == "flows: supervisor shop:registry"
    children = Path(f"/proc/{inner}/task/{inner}/children")
    # Template, maintenance, worker: of the others none is left, as a zombie or otherwise.
    wait_until(lambda: len(children.read_text().split()) == 3, what="all orphans are reaped")
    os.kill(inner, signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_a_child_that_ignores_term_is_killed_after_the_grace_period(
    supervise: StartSource,
) -> None:
    source = GREET + "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    supervised = supervise(source)
    supervised.expect_said("worker greet ready")
    supervised.send(signal.SIGTERM)
    # What the import has done to signals does not reach the workers.
    assert supervised.wait() == ExitCode.OK
    assert "killing what is left" not in supervised.stderr


def test_the_command_line_says_what_excludes_what() -> None:
    command = [*FLOWS, "supervise", APP, "--no-preload", "--start-method", "fork"]
    done: Any = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert "exclude each other" in done.stderr
    assert sys.platform == "linux" or "Linux" in done.stderr
