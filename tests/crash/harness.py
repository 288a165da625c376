"""Worker processes under fire: started, signalled, judged dead, and looked at in the database."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from flows import clock
from tests.waiting import DEADLINE_S, read_line, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.running import Runs

__all__ = ["Battlefield", "WorkerProcess"]

ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A process of `tests.crash.app`, and its diary."""

    def __init__(self, dsn: str, log: Path, stages: Sequence[str] = ()) -> None:
        self._read_fd, write_fd = os.pipe()
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.app", dsn, str(write_fd), *stages],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                pass_fds=[write_fd],
            )
        os.close(write_fd)

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def expect(self, event: str, timeout_s: float = DEADLINE_S) -> None:
        """Read the diary up to an entry."""
        deadline_s = clock.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline_s - clock.monotonic())
            try:
                line = read_line(self._read_fd, what=event, timeout_s=left_s)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log}") from None
            if json.loads(line)["event"] == event:
                return

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop it by SIGSTOP, and wait until it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it if it is left."""
        if self.process.poll() is None:
            self.kill()
        os.close(self._read_fd)


class Battlefield:
    """A database whose runs are executed by processes that come to harm.

    Attributes:
        runs: its runs.
        dsn: the database.
    """

    def __init__(self, runs: Runs, folder: Path) -> None:
        self.runs = runs
        self.dsn = runs.dsn
        self._log = folder / "workers.log"
        self._workers: list[WorkerProcess] = []
        runs.connection.execute("CREATE TABLE ledger (run_id uuid, entry text)")
        runs.connection.execute("CREATE TABLE executed (step text)")

    def start(self, *stages: str, dsn: str | None = None) -> WorkerProcess:
        """Start a worker that stops for ever at `stages`."""
        worker = WorkerProcess(dsn or self.dsn, self._log, stages)
        self._workers.append(worker)
        return worker

    def sessions(self, name: str = "flows %") -> list[int]:
        """Return the backends' pids of sessions with such an application name."""
        found = self.runs.rows(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s",
            name,
        )
        return [pid for (pid,) in found]

    def terminate(self, name: str) -> int:
        """Terminate the sessions of a name, wait until they are gone, and return how many."""
        pids = self.sessions(name)
        for pid in pids:
            assert self.runs.rows("SELECT pg_terminate_backend(%s::int, 5000)", pid) == [(True,)]
        return len(pids)

    def wait_until_disconnected(self) -> None:
        """Wait until the server has noticed that all workers are gone."""
        wait_until(lambda: not self.sessions(), what="no worker is connected")

    def expire_leases(self) -> None:
        """Let time pass for those who hold a lease now."""
        self.runs.connection.execute(
            "UPDATE flows.workers SET lease_expires_at = now() - interval '1 hour'"
            " WHERE stopped_at IS NULL"
        )

    def avenge(self, killed: WorkerProcess) -> WorkerProcess:
        """Kill a worker, let its lease run out, and start one that stops nowhere."""
        killed.kill()
        self.wait_until_disconnected()
        self.expire_leases()
        return self.start()

    def executed(self) -> dict[str, int]:
        """Return how often each step was executed."""
        return dict(self.runs.rows("SELECT step, count(*) FROM executed GROUP BY step"))

    def ledger(self) -> list[str]:
        """Return the business rows."""
        return sorted(entry for (entry,) in self.runs.rows("SELECT entry FROM ledger"))

    def column(self, column: str) -> list[Any]:
        """Return a column of all runs."""
        statement = sql.SQL("SELECT {} FROM flows.runs ORDER BY created_at")
        return [value for (value,) in self.runs.rows(statement.format(sql.Identifier(column)))]

    @contextlib.contextmanager
    def logged(self, text: str) -> Iterator[None]:
        """Expect that workers log `text` because of the block."""
        before = self._log.read_text().count(text) if self._log.exists() else 0
        yield
        wait_until(lambda: self._log.read_text().count(text) > before, what=f"logged: {text}")

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
