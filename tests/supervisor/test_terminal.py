"""Ctrl-C at a terminal reaches the supervisor alone."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import ROOT, standin_command
from tests.waiting import DEADLINE_S, read_line

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the one a person types at, and the one programs run on."""
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_ctrl_c_lets_workers_finish_and_a_second_one_does_not(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    diary_read, diary_write = os.pipe()
    command = standin_command({"workflows": [["stubborn", 1]], "grace_s": 600})

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*command, str(diary_write)],
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        pass_fds=[diary_write],
        preexec_fn=own_the_terminal,  # noqa: PLW1509  the test has one thread
    )
    os.close(diary_write)
    try:
        events: list[str] = []
        while "ready stubborn" not in events:
            events.append(next_event(diary_read))
        os.write(master, b"\x03")
        while "asked child" not in events:
            events.append(next_event(diary_read))
        os.write(master, b"\x03")
        assert process.wait(DEADLINE_S) == ExitCode.OK
        rest = os.read(diary_read, 65536).decode().splitlines()
        events += [event_of(line) for line in rest]
        # One TERM of the supervisor's, and no INT of the terminal's.
        assert events.count("asked child") == 1
        assert "release maintenance" in events
    finally:
        process.kill()
        process.wait()
        os.close(diary_read)


def next_event(fd: int) -> str:
    return event_of(read_line(fd, what="the next event"))


def event_of(line: str) -> str:
    entry = json.loads(line)
    return f"{entry['event']} {entry['who']}"
