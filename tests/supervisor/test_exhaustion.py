"""A supervisor that has no descriptor left goes on, says so, and is whole again afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.board import Board
from flows.config import DBConfig
from flows.supervisor import control as control_module
from flows.supervisor import handover as handover_module
from flows.supervisor.control import ControlServer, bind
from flows.supervisor.exits import ExitCode
from flows.supervisor.handover import Handover
from flows.supervisor.jobs import Order, Settings, Work
from flows.supervisor.processes import Processes
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.supervisor.logs import ChildOutput
    from tests.supervisor.conftest import StartApp, StartStandin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FULL = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes(lambda title, pid, line: None)
    yield processes
    processes.close()


def descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def exhaust(pid: int) -> tuple[int, int]:
    """Let a process open nothing more; return what it might before."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return before


def ask(control: Path, client: socket.socket, what: str) -> None:
    client.settimeout(DEADLINE_S)
    client.connect(str(control))
    client.sendall(json.dumps({"do": what}).encode() + b"\n")


def answer(client: socket.socket) -> dict[str, Any]:
    with client.makefile() as lines:
        return dict(json.loads(lines.readline()))


def test_a_supervisor_without_descriptors_goes_on_and_answers_when_it_has_some(
    app: StartApp, control: Path
) -> None:
    supervised = app("--only", "double", "--control", str(control))
    supervised.expect_said("worker double ready")
    supervised.expect_said("maintenance ready")
    before = exhaust(supervised.pid)
    with socket.socket(socket.AF_UNIX) as client:
        ask(control, client, "status")
        supervised.expect_said("control: cannot take a connection: [Errno 24]")
        resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE, before)
        assert answer(client)["ok"] is True
    assert supervised.stderr.count("cannot take a connection") == 1
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK


def test_a_worker_that_dies_without_descriptors_is_replaced_when_there_are_some(
    standin: StartStandin,
) -> None:
    supervised = standin("good")
    worker = supervised.expect("ready", "good")
    supervised.expect("ready", "maintenance")
    supervised.expect_said("maintenance ready")
    held = len(list(Path(f"/proc/{supervised.pid}/fd").iterdir()))
    before = exhaust(supervised.pid)
    os.kill(worker["pid"], signal.SIGKILL)
    supervised.expect_said("worker good cannot be forked: [Errno 24]")
    resource.prlimit(supervised.pid, resource.RLIMIT_NOFILE, before)
    supervised.expect("ready", "good")
    wait_until(
        lambda: len(list(Path(f"/proc/{supervised.pid}/fd").iterdir())) == held,
        what=f"{held} descriptors are open as before",
    )


class Refusing(socket.socket):
    """Listens, and has no descriptor for who comes."""

    asked = 0

    def accept(self) -> Any:
        self.asked += 1
        raise FULL


def test_who_cannot_be_let_in_does_not_keep_the_supervisor_busy(
    processes: Processes, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "_REST_S", 0.05)
    bound = bind(control)
    said: list[str] = []
    with Refusing(socket.AF_UNIX, fileno=bound.detach()) as listener:
        listener.setblocking(False)
        server = ControlServer(processes, listener, control, lambda *_: None, said.append)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(control))
            for count in (1, 2, 3):
                # Whoever waits for ever is woken to ask again, and no earlier.
                while listener.asked < count:
                    processes.wait(None)
                processes.wait(0.0)
                assert listener.asked == count
        assert len(said) == 1
        server.close()


def test_a_listener_that_rests_is_closed_with_the_others(
    processes: Processes, control: Path
) -> None:
    bound = bind(control)
    with Refusing(socket.AF_UNIX, fileno=bound.detach()) as listener:
        server = ControlServer(processes, listener, control, lambda *_: None, lambda _: None)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(control))
            processes.wait(DEADLINE_S)
            assert listener.asked == 1
            read_fd, write_fd = os.pipe()
            child = processes.fork(
                lambda _: os.write(write_fd, str(listener.fileno()).encode()), title="flows: child"
            )
            os.close(write_fd)
            assert os.read(read_fd, 8) == b"-1"
            os.close(read_fd)
        assert child.pid
        server.close()
    assert not control.exists()


def test_a_wait_may_be_asked_for_that_is_longer_than_the_system_takes(
    processes: Processes,
) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        processes.watch(ours, list)
        assert processes.wait(365 * 86_400.0) == []
        processes.unwatch(ours)


def open_no_board(executors: int, rate: float = 0.0) -> int:
    raise FULL


def open_no_output(self: Processes) -> tuple[ChildOutput | None, int | None]:
    raise FULL


def write_no_order(order: Order) -> int:
    raise FULL


def map_no_board(self: Board, fd: int) -> None:
    raise FULL


@pytest.mark.parametrize(
    ("target", "name", "refuse"),
    [
        (Board, "open", open_no_board),
        (Board, "__init__", map_no_board),
        (Processes, "open_output", open_no_output),
        (handover_module, "write_order", write_no_order),
    ],
)
def test_what_a_child_cannot_be_given_leaves_nothing_open(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, refuse: Any
) -> None:
    monkeypatch.setattr(target, name, refuse)
    settings = Settings("", DBConfig(), uuid.uuid4())
    order = Order("flows: worker", Work("demo", uuid.uuid4()), settings, os.getpid())
    before = descriptors()
    with pytest.raises(OSError, match="Too many open files"), Handover(processes, order):
        pass
    assert descriptors() == before


def pause(_: object) -> int:
    signal.pause()
    return 0


def left_behind() -> Iterator[tuple[int, int]]:
    """Reap what children of this process there are."""
    with contextlib.suppress(ChildProcessError):
        while True:
            yield os.waitpid(-1, 0)


@pytest.mark.parametrize("sources", [None, 0, 1, 2])
def test_a_fork_that_fails_halfway_leaves_nothing_open_and_nobody_behind(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, sources: int | None
) -> None:
    before = descriptors()
    selector = processes._selector
    register = selector.register
    if sources is None:
        monkeypatch.setattr(Processes, "open_output", open_no_output)

    def register_some(*arguments: Any) -> Any:
        if len(selector.get_map()) == sources:
            raise FULL
        return register(*arguments)

    monkeypatch.setattr(selector, "register", register_some)
    with pytest.raises(OSError, match="Too many open files"):
        processes.fork(pause, title="flows: child")
    assert descriptors() == before
    assert len(selector.get_map()) == 0
    # It would wait for a signal for ever.
    assert [status for _, status in left_behind()] == [signal.SIGKILL] * (sources is not None)


def test_a_child_that_gets_no_descriptor_of_its_own_is_watched_all_the_same(
    standin: StartStandin,
) -> None:
    supervised = standin("good", pidfd_fails=True)
    first = supervised.expect("ready", "good")
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect("release", "maintenance")
    assert supervised.expect("ready", "good")["pid"] != first["pid"]
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
