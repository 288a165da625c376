"""A supervisor and its processes, as one host of several on the same database."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.supervisor.exits import ExitCode
from tests.waiting import process_exists

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Host", "send"]

ROOT = Path(__file__).resolve().parents[3]
APP = "tests.crash.soak.app:registry"
_STARTED = re.compile(r"^.*(?:worker|maintenance|template).* started \(pid \d+\)$", re.MULTILINE)


class Host:
    """A supervisor that is started anew when it was killed.

    Attributes:
        name: as in "host 1".
        supervisors: how many there have been.
        ended_by_itself: the exit codes of those that were not killed.
    """

    def __init__(self, name: str, dsn: str, folder: Path) -> None:
        self.name = name
        self._dsn = dsn
        self._log = folder / f"{name.replace(' ', '-')}.log"
        # Not with the log: a socket's path must be short.
        self._sockets = tempfile.mkdtemp(prefix="flows-soak-")
        self._control = Path(self._sockets) / "control"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.supervisors = 0
        self.ended_by_itself: list[int] = []

    @property
    def log(self) -> str:
        """What its supervisors have said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def processes_started(self) -> int:
        """How many workers and maintenance processes its supervisors have started."""
        return len(_STARTED.findall(self.log))

    def start(self) -> None:
        """Start a supervisor, and wait for nothing."""
        command = [sys.executable, "-m", "tests.crash.soak.supervise", "supervise", APP]
        options = ["--dsn", self._dsn, "--grace", "10", "--debug", "--control", str(self._control)]
        self._log_start = len(self.log)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.supervisors += 1

    def ensure_started(self) -> None:
        """Start a supervisor if there is none, as a service manager does.

        Fails where one has said that a person is needed. Others may find no database at their
        start, or be killed in part before they are up.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            needs_somebody = code in {ExitCode.CONFIG, ExitCode.SCHEMA}
            assert not needs_somebody, f"{self.name} ended with {code}: {self.log[-3000:]}"
            if code != -signal.SIGKILL:
                self.ended_by_itself.append(code)
            self.start()

    def processes(self, *kinds: str) -> list[int]:
        """Return the pids of children whose title begins with one of these, as in "worker"."""
        return [
            pid
            for pid, title in self._children()
            if title.startswith(tuple(f"flows: {kind}" for kind in kinds))
        ]

    def workers(self) -> list[int]:
        """Return the pids of its workers."""
        return self.processes("worker")

    def reload(self) -> bool:
        """Have the supervisor reload; False where it has just been started and cannot hear it."""
        assert self._process is not None
        # An interpreter that has not come as far as its handlers ends by a HUP.
        if "supervising" not in self.log[self._log_start :]:
            return False
        self._process.send_signal(signal.SIGHUP)
        return True

    def kill(self) -> None:
        """Kill the supervisor: the kernel kills its children."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def tell_all(self, signum: signal.Signals) -> Sequence[int]:
        """Signal the supervisor and then all its children; return the pids."""
        assert self._process is not None
        pids = [self._process.pid, *(pid for pid, _ in self._children())]
        for pid in pids:
            send(pid, signum)
        return pids

    def stop(self, timeout_s: float) -> int | None:
        """Ask the supervisor to end; return its exit code, None where it does not end."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Kill it if it is left."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._sockets)

    def _children(self) -> list[tuple[int, str]]:
        assert self._process is not None
        pid = self._process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [(int(each), _title(int(each))) for each in children]
        return []


def send(pid: int, signum: signal.Signals) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        if process_exists(pid):
            os.kill(pid, signum)


def _title(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    return ""
