"""Processes that use an embedded server, for the tests of when it lives and when it goes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import embedded
from flows.embedded import cluster, locks
from flows.embedded.binaries import find_binaries
from tests.waiting import DEADLINE_S, read_line, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flows.embedded.account import Account

__all__ = [
    "Starter",
    "data_of",
    "execute",
    "is_running",
    "needs_root",
    "postgres_by_hand",
    "project",
    "server_pid",
    "spawn",
    "wait_until_stopped",
    "watchdog_pid",
]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="shows what happens as root")

_PROGRAM = """
import sys
from pathlib import Path
from flows import embedded
from flows.errors import EmbeddedError
try:
    server = embedded.start(Path(sys.argv[1]))
except EmbeddedError as error:
    sys.exit(f"EmbeddedError: {error}")
print(server.dsn, flush=True)
for line in sys.stdin:
    exec(line)
"""


@dataclass(frozen=True)
class Starter:
    """A process that starts or joins a server and holds it until its input ends."""

    process: subprocess.Popen[str]

    def dsn(self) -> str:
        """Wait for the server and return its DSN."""
        assert self.process.stdout is not None
        return read_line(self.process.stdout.fileno(), what="the server is started", timeout_s=60)

    def do(self, statement: str) -> str:
        """Run a line of Python in the process and return the line that it prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        return read_line(self.process.stdout.fileno(), what=f"done: {statement}")

    def error(self) -> str:
        """Wait for the end of the process and return what it said of its failure."""
        output, errors = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode != 0, output
        return errors

    def kill(self) -> None:
        """SIGKILL the process."""
        self.process.kill()
        self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def spawn(
    home: Path,
    *,
    account: Account | None = None,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    program: str = _PROGRAM,
    **options: Any,
) -> Iterator[Starter]:
    """Run a process that starts the server of `home`; its input ends with the block.

    Args:
        home: the folder of the cluster.
        account: whom to run it as.
        python: the interpreter; the one of these tests may be closed to that user.
        environment: in addition to ours.
        program: instead of the one that holds the server until its input ends.
        options: of `subprocess.Popen`.
    """
    identity = account.identity if account is not None else {}
    process = subprocess.Popen(
        [python, "-c", program, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        **identity,
        **options,
    )
    with process:
        try:
            yield Starter(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(DEADLINE_S)


@contextlib.contextmanager
def project(*, mode: int = 0o755, owner: str | None = None) -> Iterator[Path]:
    """Yield the home of a project's server; the server is stopped and all is removed."""
    folder = Path(tempfile.mkdtemp(prefix="flows-project-"))
    folder.chmod(mode)
    if owner is not None:
        os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)
    home = folder / ".flows" / "pg"
    try:
        yield home
    finally:
        embedded.stop(home)
        shutil.rmtree(folder)


def data_of(home: Path) -> Path:
    """Return where the data folder really is."""
    return (home / "data").resolve()


def server_pid(home: Path) -> int:
    """Return the process id of the running server."""
    running = cluster.read_postmaster(data_of(home))
    assert running is not None
    return running.pid


def watchdog_pid(home: Path) -> int:
    """Return the process id of the server's watchdog."""
    return int((home / "watchdog").read_text(encoding="ascii").split()[0])


@contextlib.contextmanager
def postgres_by_hand(
    data: Path, account: Account, *, inherits: int | None = None, port: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server without a watchdog, with or without the lock that it would have from one.

    With a port it listens there too, on this machine's loopback.
    """
    options = ["unix_socket_directories=.", "listen_addresses="]
    if port is not None:
        options[1:] = ["listen_addresses=127.0.0.1", f"port={port}"]
    with subprocess.Popen(
        [str(find_binaries().postgres), "-D", str(data), *(f"--{option}" for option in options)],
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=() if inherits is None else (inherits,),
        **account.identity,
    ) as process:

        def is_ready() -> bool:
            assert process.poll() is None, "the server started by hand has failed"
            running = cluster.read_postmaster(data)
            return running is not None and running.is_ready

        try:
            wait_until(is_ready, what="the server started by hand is ready")
            yield process
        finally:
            process.send_signal(signal.SIGQUIT)


def is_running(home: Path) -> bool:
    """Tell whether a server or its watchdog is alive."""
    return locks.is_held(home / "server") or locks.is_held(home / "watchdog")


def wait_until_stopped(home: Path) -> None:
    """Wait until server and watchdog are gone."""
    wait_until(lambda: not is_running(home), what="server and watchdog are gone")


def execute(dsn: str, statement: str) -> Any:
    """Run a statement and return its first value, if it has one."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
