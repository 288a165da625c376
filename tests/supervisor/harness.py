"""A running supervisor, seen from outside: what it says, what its children live through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from flows import clock
from flows.client import Client
from tests.waiting import DEADLINE_S, read_line, wait_until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
FLOWS = [sys.executable, "-c", "from flows.cli import main; main()"]
APP = "tests.supervisor.app:registry"
SETTINGS = {"PYTHONUNBUFFERED": ""}
"""Buffers as a person has them, whatever this machine prefers."""
GREET = """
from flows import Registry
registry = Registry()
@registry.workflow('greet')
def greet(wf, name): return f'hello {name}'
"""
"""The source of an application with one workflow."""
STANDIN = Path(__file__).with_name("standin.py")


class Supervised:
    """A supervisor as a process, with the diary of its children.

    Attributes:
        process: the supervisor.
        dsn: the database, where there is one.
        diary: what the children have written so far and nobody has waited for.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        diary_as_argument: bool = False,
    ) -> None:
        self._read_fd, write_fd = os.pipe()
        os.set_inheritable(write_fd, True)
        self._out = folder / "stdout"
        self._err = folder / "stderr"
        if diary_as_argument:
            command = [*command, str(write_fd)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                pass_fds=[write_fd],
                env={**os.environ, **SETTINGS, "FLOWS_DIARY_FD": str(write_fd), **(env or {})},
            )
        os.close(write_fd)
        self.dsn = ""
        self.diary: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def expect(self, event: str, who: str, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """Return the next entry of the diary that is this one; others are kept."""
        for index, entry in enumerate(self.diary):
            if (entry["event"], entry["who"]) == (event, who):
                return self.diary.pop(index)
        deadline_s = clock.monotonic() + timeout_s
        while True:
            remaining_s = deadline_s - clock.monotonic()
            try:
                line = read_line(
                    self._read_fd, what=f"{who}: {event}", timeout_s=max(0.0, remaining_s)
                )
            except AssertionError as error:
                raise AssertionError(f"{error}; others: {self.diary}; {self.stderr}") from None
            entry = json.loads(line)
            if (entry["event"], entry["who"]) == (event, who):
                return dict(entry)
            self.diary.append(entry)

    def expect_said(self, text: str, timeout_s: float = DEADLINE_S) -> None:
        """Wait until the supervisor has said something on stderr."""
        wait_until(lambda: text in self.stderr, what=f"stderr says {text!r}", timeout_s=timeout_s)

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Return the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the supervisor has not ended; {self.stderr}") from None

    def end(self) -> None:
        """Kill it if it is left; its children die with it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        os.close(self._read_fd)


def standin_command(options: dict[str, Any]) -> list[str]:
    return [sys.executable, str(STANDIN), json.dumps(options)]


def title_of(pid: int) -> str:
    """Return what `ps` shows of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def child_titled(supervised: Supervised, title: str) -> int:
    """Return the pid of the supervisor's child with this title."""
    children = Path(f"/proc/{supervised.pid}/task/{supervised.pid}/children")
    for pid in map(int, children.read_text().split()):
        if title_of(pid) == title:
            return pid
    raise AssertionError(f"no child is titled {title!r}")


def begin(dsn: str, workflow: str, value: Any = None) -> str:
    """Begin a run and return its key."""
    with psycopg.connect(dsn) as tx:
        return str(Client().begin_tx(tx, workflow, value))


def execute(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Execute a statement, commit, and return its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def rows(dsn: str, columns: str = "workflow_name, status, attempts") -> list[tuple[Any, ...]]:
    """Return some columns of all runs."""
    return execute(dsn, f"SELECT {columns} FROM flows.runs ORDER BY workflow_name, created_at")
