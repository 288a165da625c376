"""At a terminal: Ctrl-C reaches the supervisor alone, and a closed window ends it in order."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import ROOT, standin_command
from tests.waiting import DEADLINE_S, read_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the one a person types at, and the one programs run on."""
    master, slave = pty.openpty()
    yield master, slave
    for end in (master, slave):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


@pytest.fixture
def diary() -> Iterator[tuple[int, int]]:
    """Both ends of the pipe to which the stand-ins write what they do."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@contextlib.contextmanager
def supervised_at(
    slave: int, diary_fd: int, *, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor of a stubborn worker in the foreground of a terminal."""

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*standin_command({"workflows": [["stubborn", 1]], "grace_s": 600}), str(diary_fd)],
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave if stderr is None else stderr,
        pass_fds=[diary_fd],
        preexec_fn=own_the_terminal,  # noqa: PLW1509  the test has one thread
    )
    os.close(diary_fd)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(event: str, diary_fd: int) -> list[str]:
    """Return what is written up to an event."""
    events: list[str] = []
    while event not in events:
        events.append(next_event(diary_fd))
    return events


def test_ctrl_c_lets_workers_finish_and_a_second_one_does_not(
    terminal: tuple[int, int], diary: tuple[int, int]
) -> None:
    master, slave = terminal
    with supervised_at(slave, diary[1]) as process:
        wait_for("ready stubborn", diary[0])
        os.write(master, b"\x03")
        events = wait_for("asked child", diary[0])
        os.write(master, b"\x03")
        assert process.wait(DEADLINE_S) == ExitCode.OK
        rest = os.read(diary[0], 65536).decode().splitlines()
        events += [event_of(line) for line in rest]
        # One TERM of the supervisor's, and no INT of the terminal's.
        assert events.count("asked child") == 1
        assert "release maintenance" in events


def test_workers_finish_when_the_terminal_is_closed(
    terminal: tuple[int, int], diary: tuple[int, int], tmp_path: Path
) -> None:
    master, slave = terminal
    with (
        (tmp_path / "err").open("wb") as err,
        supervised_at(slave, diary[1], stderr=err.fileno()) as process,
    ):
        wait_for("ready stubborn", diary[0])
        os.close(slave)
        os.close(master)
        wait_for("asked child", diary[0])
        # The shell that ends with its terminal says so too, and no second time to stop.
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == ExitCode.OK
    said = (tmp_path / "err").read_text()
    assert "received SIGHUP: stopping, for at most 600 s" in said
    assert said.count("stopping at once") == 1
    assert "received SIGTERM: stopping at once" in said


def next_event(fd: int) -> str:
    return event_of(read_line(fd, what="the next event"))


def event_of(line: str) -> str:
    entry = json.loads(line)
    return f"{entry['event']} {entry['who']}"
