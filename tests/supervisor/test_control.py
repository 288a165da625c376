"""The control socket, by real clients of a real supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows import clock
from flows.cli.control import ControlError, ask, find
from flows.supervisor.control import ControlServer, Reply, Request, bind
from flows.supervisor.exits import ExitCode
from flows.supervisor.messages import Counted
from flows.supervisor.operations import Operations
from flows.supervisor.processes import Processes
from flows.supervisor.silence import Silence
from tests.supervisor.harness import APP, FLOWS, ROOT, Supervised, begin, child_titled, rows
from tests.waiting import DEADLINE_S, process_exists, wait_until, wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.supervisor.conftest import StartApp, StartSource


def run(*arguments: str, control: Path) -> subprocess.CompletedProcess[str]:
    command = [*FLOWS, *arguments, "--control", str(control)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def status(control: Path) -> dict[str, Any]:
    done = run("status", "--json", control=control)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def by_name(control: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in status(control)["processes"]}


def wait_for_state(control: Path, name: str, state: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        process = by_name(control).get(name, {})
        return process if process.get("state") == state else None

    return wait_until(found, what=f"{name} is {state}") or {}


def test_status_tells_what_each_process_does(app: StartApp, control: Path, gate: Path) -> None:
    supervised = app("--only", "held", "--only", "report", "--control", str(control))
    supervised.expect_said("worker held ready")
    key = begin(supervised.dsn, "held", str(gate))
    supervised.expect("executing", "held")
    wait_until(
        lambda: by_name(control)["worker held"]["executing"][0]["step"] == "gate/v1",
        what="it is in its step",
    )
    state = status(control)
    assert (state["app"], state["pid"], state["state"]) == (APP, supervised.pid, "running")
    held = by_name(control)["worker held"]
    assert key.endswith(held["executing"][0]["run"])
    assert (held["state"], held["executors"], held["finished"]) == ("ready", 2, 0)
    assert held["rss"] > 2**20
    shown = run("status", control=control).stdout
    assert "worker report [2/2]" in shown
    assert "1/2" in shown
    frame = run("top", control=control).stdout
    assert held["executing"][0]["run"] in frame
    assert "gate/v1" in frame
    gate.write_text("go")
    wait_until(lambda: by_name(control)["worker held"]["finished"] == 1, what="it is counted")


def test_a_broken_workflow_is_told_with_its_last_exit_and_can_be_restarted(
    app: StartApp, control: Path
) -> None:
    supervised = app(
        "--only", "deadly", "--only", "double", "--begin", "deadly", "--control", str(control)
    )
    supervised.expect_said("workflow deadly is broken")
    broken = by_name(control)["worker deadly"]
    assert broken["state"] == "broken"
    assert broken["restarts"] == 5
    assert "exited with code 3" in broken["last_exit"]
    assert 100 < broken["due_s"] <= 180
    shown = run("status", control=control).stdout
    assert "worker deadly is broken: its runs are not executed" in shown
    assert "exited with code 3" in shown
    restarted = run("restart", "deadly", control=control)
    assert restarted.returncode == 0
    assert restarted.stderr == "flows: workflow deadly: 1 process started\n"
    # Not as one that is broken already: it has its whole budget again.
    wait_until(
        lambda: supervised.stderr.count("exited with code 3; restarting now") == 2,
        what="it is restarted as if for the first time",
    )


def test_restart_replaces_each_process_when_the_next_is_ready(
    app: StartApp, control: Path, gate: Path
) -> None:
    supervised = app("--only", "held", "--control", str(control))
    begin(supervised.dsn, "held", str(gate))
    first = supervised.expect("executing", "held")
    done = run("restart", "held", control=control)
    assert done.returncode == 0
    assert "1 process replaced" in done.stderr
    # The one before finishes what it executes.
    assert process_exists(first["pid"])
    wait_for_state(control, "worker held", "retiring")
    gate.write_text("go")
    wait_until_gone(first["pid"], what="the process before")
    assert rows(supervised.dsn) == [("held", "completed", 0)]


def test_scale_changes_the_number_of_processes(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    assert run("scale", "double", "3", control=control).returncode == 0
    wait_for_state(control, "worker double [3/3]", "ready")
    assert {name for name in by_name(control) if name != "maintenance"} == {
        f"worker double [{number}/3]" for number in (1, 2, 3)
    }
    third = by_name(control)["worker double [3/3]"]["pid"]
    assert run("scale", "double", "1", control=control).returncode == 0
    wait_until_gone(third, what="the third process")
    supervised.expect_said("not needed: finishing its runs")
    wait_for_state(control, "worker double", "ready")
    refused = run("scale", "nobody", "2", control=control)
    assert refused.returncode == 1
    assert "no workflow 'nobody' is run here (but double)" in refused.stderr


def test_reload_waits_until_the_new_code_runs(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    done = run("reload", control=control)
    assert done.returncode == 0
    assert "reloaded: generation 2" in done.stderr
    assert status(control)["generation"] == 2


BOOTS_ONCE = """
import contextlib, pathlib
from flows import Registry

@contextlib.contextmanager
def life():
    if pathlib.Path("dead").exists():
        raise ValueError("no life")
    yield

registry = Registry(lifespan=life)

@registry.workflow("killer")
def kill(wf): ...
"""


def test_who_asks_is_told_why_a_process_cannot_boot(
    supervise: StartSource, control: Path, tmp_path: Path
) -> None:
    supervised = supervise(BOOTS_ONCE, "--control", str(control))
    supervised.expect_said("worker killer ready")
    (tmp_path / "supervisor-0" / "dead").touch()
    for what in (("reload",), ("restart", "killer")):
        done = run(*what, control=control)
        assert done.returncode == 1
        assert "worker killer cannot boot: ValueError: no life" in done.stderr
    os.kill(by_name(control)["worker killer"]["pid"], signal.SIGKILL)
    wait_until(
        lambda: (by_name(control)["worker killer"]["last_exit"] or "").endswith("no life"),
        what="status tells it too",
    )


def test_stacks_show_where_a_step_is(app: StartApp, control: Path, gate: Path) -> None:
    supervised = app("--only", "held", "--control", str(control))
    begin(supervised.dsn, "held", str(gate))
    worker = supervised.expect("executing", "held")
    done = run("stacks", "held", control=control)
    assert done.stdout.startswith(f"worker held (pid {worker['pid']})\n")
    assert "in pass_gate" in done.stdout
    gate.write_text("go")


def test_drain_ends_the_supervisor_and_waits_for_that(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    done = run("drain", control=control)
    assert done.returncode == 0
    assert "the supervisor has ended" in done.stderr
    assert supervised.wait() == ExitCode.OK
    assert not control.exists()


def test_who_asks_for_queues_is_told_when_maintenance_dies_and_the_next_one_counts(
    app: StartApp, control: Path
) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    supervised.expect_said("maintenance ready")
    maintenance = child_titled(supervised, "flows: maintenance")
    os.kill(maintenance, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as first:
        ask_for_queues(control, first)
        # Came later, and was answered: the other has been read by now.
        assert status(control)["state"] == "running"
        os.kill(maintenance, signal.SIGKILL)
        refusal = read_answer(first)
    assert refusal["ok"] is False
    assert "maintenance has ended" in refusal["error"]
    wait_until(
        lambda: supervised.stderr.count("maintenance ready") == 2, what="there is another one"
    )
    with socket.socket(socket.AF_UNIX) as second:
        ask_for_queues(control, second)
        assert read_answer(second) == {"ok": True, "queues": {}}


class Asking:
    """Who has asked, and keeps the reason for which there is no answer."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def refuse(self, reason: str) -> None:
        self.refused.append(reason)


def test_who_asks_for_queues_is_told_why_they_cannot_be_counted() -> None:
    nobody: Any = None
    operations = Operations(
        "app",
        nobody,
        nobody,
        nobody,
        nobody,
        silence=Silence(),
        phase=lambda: "running",
        stop=print,
    )
    asking: Any = Asking()
    operations._counting.append(asking)
    operations.on_counted(Counted({}, "division by zero"))
    assert asking.refused == ["division by zero"]
    assert operations._counting == []


def ask_for_queues(control: Path, client: socket.socket) -> None:
    client.settimeout(DEADLINE_S)
    client.connect(str(control))
    client.sendall(b'{"do": "queues"}\n')


def read_answer(client: socket.socket) -> dict[str, Any]:
    with client.makefile() as lines:
        return dict(json.loads(lines.readline()))


def test_without_a_supervisor_a_command_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FLOWS, "status"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("flows: error: no supervisor runs in ")
    assert "--control" in done.stderr


def test_nonsense_harms_nobody_and_descriptors_do_not_grow(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    supervised.expect_said("maintenance ready")

    def held() -> int:
        return len(list(Path(f"/proc/{supervised.pid}/fd").iterdir()))

    before = held()
    for number in range(100):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(control))
            what = [
                b"nonsense\n",
                b'{"do": "status"',
                b'{"do": "fly"}\n',
                b"",
                b'{"do":"status"}\n',
            ]
            client.sendall(what[number % 5])
            if number % 5 in (0, 2):
                assert json.loads(client.makefile().readline())["ok"] is False
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(control))
        with contextlib.suppress(OSError):
            client.sendall(b"x" * 10_000_000)
        assert b"too long" in client.recv(4096)
    wait_until(lambda: held() == before, what="all connections are closed")
    assert status(control)["state"] == "running"


def test_clients_that_never_ask_do_not_keep_others_out(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    with contextlib.ExitStack() as idle:
        for _ in range(20):
            client = idle.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(control))
        assert status(control)["state"] == "running"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
def test_another_user_is_kept_out(app: StartApp, control: Path) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    control.parent.chmod(0o755)
    assert control.stat().st_mode & 0o777 == 0o600
    pid = os.fork()
    if pid == 0:
        os.setuid(pwd.getpwnam("nobody").pw_uid)
        try:
            socket.socket(socket.AF_UNIX).connect(str(control))
        except PermissionError:
            os._exit(13)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 13


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_is_told_that_the_supervisor_is_not_theirs(mode: int) -> None:
    # Not in a folder of pytest's, which only its owner can enter.
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(name) / ".flows"
        path = folder / "supervisor-1.sock"
        folder.parent.chmod(0o755)
        folder.mkdir()
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        folder.chmod(mode)
        found = Path(".flows") if mode == 0o700 else Path(".flows") / path.name
        said = as_nobody(folder.parent, lambda: find(None))
        whose = f"{found} is another user's; run flows as its owner"
        assert said == f"a supervisor may run in {folder.parent}, but {whose}"
        said = as_nobody(folder.parent, lambda: ask(path, {"do": "status"}, patient=False))
        assert said == f"{path} is another user's; run flows as its owner"


def as_nobody(folder: Path, what: Callable[[], object]) -> str:
    """Return the refusal that another user gets for something."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            os.setuid(pwd.getpwnam("nobody").pw_uid)
            what()
        except ControlError as error:
            os.write(writing, error.message.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as told:
        return told.read().decode()


def test_a_stale_socket_is_replaced_and_a_live_one_respected(
    app: StartApp, control: Path, tmp_path: Path
) -> None:
    first = app("--only", "double", "--control", str(control))
    first.expect_said("worker double ready")
    first.send(signal.SIGKILL)
    first.wait()
    assert control.exists()
    second = app("--only", "double", "--control", str(control))
    second.expect_said("worker double ready")
    (tmp_path / "third").mkdir()
    command = [*FLOWS, "supervise", APP, "--dsn", second.dsn, "--control", str(control)]
    third = Supervised(command, tmp_path / "third")
    assert third.wait() == ExitCode.CONFIG
    assert f"a supervisor is listening at {control} already" in third.stderr
    third.end()
    assert status(control)["pid"] == second.pid


def test_a_path_that_is_too_long_is_refused(app: StartApp, tmp_path: Path) -> None:
    supervised = app("--only", "double", "--control", str(tmp_path / ("x" * 120)))
    assert supervised.wait() == ExitCode.CONFIG
    assert "a socket's path has 100 bytes at most" in supervised.stderr


def test_without_a_place_of_its_own_it_listens_in_the_folder(
    flows_dsn: str, tmp_path: Path
) -> None:
    # However deep that is: as a whole its path would be too long for a socket.
    folder = tmp_path / ("x" * 120)
    folder.mkdir(mode=0o700)
    environment = {"PYTHONPATH": str(ROOT)}
    command = [*FLOWS, "supervise", APP, "--dsn", flows_dsn, "--only", "double"]
    supervised = Supervised(command, tmp_path, cwd=folder, env=environment)
    try:
        check_folder(supervised, folder, environment)
    finally:
        supervised.end()


def check_folder(supervised: Supervised, folder: Path, environment: dict[str, str]) -> None:
    supervised.expect_said("worker double ready")
    made = folder / ".flows"
    assert made.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in made.iterdir()] == [f"supervisor-{supervised.pid}.sock"]
    done = subprocess.run(
        [*FLOWS, "status"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "worker double" in done.stdout
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert list(made.iterdir()) == []


def test_an_answer_larger_than_a_socket_takes_is_read_whole(control: Path) -> None:
    blob = "x" * 5_000_000
    processes = Processes()

    def answer(request: Request, reply: Reply) -> None:
        assert request.do == "status"
        reply.say("first")
        reply.done(blob=blob)

    server = ControlServer(processes, bind(control), control, answer, print)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control))
        client.sendall(b'{"do": "status"}\n')
        received = bytearray()
        client.setblocking(False)
        deadline_s = clock.monotonic() + 20
        while not received.endswith(b"}\n") or len(received) < len(blob):
            assert clock.monotonic() < deadline_s
            # What it takes at once is not all: the rest goes out when something was read.
            processes.wait(0.05)
            with contextlib.suppress(BlockingIOError):
                received += client.recv(1 << 20)
        first, second = bytes(received).splitlines()
    assert json.loads(first) == {"say": "first"}
    assert json.loads(second)["blob"] == blob
    server.close()
    processes.close()
