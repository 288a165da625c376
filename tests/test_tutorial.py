"""The tutorial, walked through: its files, its commands and what they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.citus import not_on_citus
from tests.doc_blocks import blocks_of
from tests.source_tree import ROOT
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL = "python3 -m venv"
SUPERVISE = "flows supervise app:registry"

# What somebody who reads and types has waited for when the command comes, each in its turn.
COMPLETED = "^status +completed$"
BEFORE = {
    "flows runs list": [COMPLETED],
    "flows status": ["up to 200000/v1"],
    "flows runs show KEY": [COMPLETED, COMPLETED, "^status +waiting_event$", COMPLETED],
    "flows runs list --status failed": ["^status +failed$"],
}
"""As `flows runs show` tells it."""


class Reader:
    """Follows the tutorial in a folder, with a database of its own."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._folder = folder
        self._dsn = dsn
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "FLOWS_DATABASE_URL": dsn,
        }
        self._key = ""
        self._before = {command: list(states) for command, states in BEFORE.items()}
        self._supervisor: subprocess.Popen[str] | None = None

    def write(self, name: str, text: str) -> None:
        """Write one of its files."""
        (self._folder / name).write_text(text, "utf-8")

    def type(self, command: str) -> str:
        """Type one of its commands and return what it prints."""
        if command == SUPERVISE:
            self._supervisor = subprocess.Popen(
                shlex.split(command), cwd=self._folder, env=self._environment, text=True
            )
            wait_until(lambda: "ready" in self._run("flows status"), what="the worker is ready")
            return ""
        for state in self._before.get(command, [])[:1]:
            self._wait_until_shown(state)
            self._before[command].remove(state)
        if command == "kill -9 PID":
            os.kill(self._worker_pid(), signal.SIGKILL)
            return ""
        printed = self._run(command)
        if command.startswith("flows begin"):
            self._key = printed.strip()
        return printed

    def wait_for_end(self) -> int:
        """Wait until the supervisor has ended and return its exit code."""
        assert self._supervisor is not None
        return self._supervisor.wait(DEADLINE_S)

    def stop(self) -> None:
        """End the supervisor, if it still runs."""
        if self._supervisor is not None:
            self._supervisor.terminate()
            self._supervisor.wait(DEADLINE_S)

    def _wait_until_shown(self, state: str) -> None:
        show = f"flows runs show {self._key}"
        wait_until(lambda: re.search(state, self._run(show), re.MULTILINE), what=state)

    def _run(self, command: str) -> str:
        command = command.replace("KEY", self._key).replace("$(flows db url)", self._dsn)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0 or command == "flows status", done.stdout + done.stderr
        return done.stdout

    def _worker_pid(self) -> int:
        processes = json.loads(self._run("flows status --json"))["processes"]
        return int(next(each["pid"] for each in processes if each["workflow"] == "primes"))


@pytest.fixture
def reader(flows_dsn: str) -> Iterator[Reader]:
    # Not tmp_path, whose name may be too long for the supervisor's socket.
    with tempfile.TemporaryDirectory(prefix="flows-") as folder:
        reader = Reader(Path(folder), flows_dsn)
        yield reader
        reader.stop()


def check(promised: str, printed: str) -> None:
    """Check that a command has printed what does not depend on the day: states, values, keys."""
    lines = [line.split() for line in printed.splitlines()]
    for line in promised.splitlines():
        words = line.split()
        if words[:1] in (["status"], ["input"], ["output"]):
            assert words in lines, printed
    for key in re.findall(r"\S+/v\d", promised):
        assert key in printed


@not_on_citus("its table is on one server")
def test_the_tutorial_goes_as_it_says(reader: Reader) -> None:
    printed = ""
    typed = []
    for block in blocks_of(ROOT / "docs" / "tutorial.md"):
        if block.file is not None:
            reader.write(block.file, block.text)
        elif block.language == "sh" and not block.text.startswith(INSTALL):
            for command in block.text.splitlines():
                typed.append(command)
                printed = reader.type(command)
        elif block.language == "text" and "flows:" not in block.text:
            check(block.text, printed)
    assert typed[-1] == "flows drain"
    assert set(BEFORE) <= set(typed)
    assert reader.wait_for_end() == 0
