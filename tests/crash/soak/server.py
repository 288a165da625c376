"""A PostgreSQL that is stopped, killed and started again, and keeps its data."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from flows.embedded import cluster, locks, placement
from flows.embedded.launch import prepare_launch
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAST", "IMMEDIATE", "POWER", "Postgres"]

FAST = signal.SIGINT
"""Sessions are told, and rolled back."""

IMMEDIATE = signal.SIGQUIT
"""All processes quit; the next start recovers."""

POWER = signal.SIGKILL
"""The server dies, and its processes when they notice."""


class Postgres:
    """A server in a folder of its own, without a watchdog.

    Attributes:
        home: the folder.
        dsn: the database, whose socket stays where it is.
    """

    def __init__(self, home: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        """Create a cluster and start it.

        Args:
            home: an empty folder; without one, one of its own, which is removed at the end.
            settings: of the server.
        """
        self._is_ours = home is None
        folder = Path(tempfile.mkdtemp(prefix="flows-soak-")) if home is None else home
        folder.chmod(0o711)
        self.home = placement.prepare_home(folder / "pg")
        self._settings = {"autovacuum_naptime": "5s", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder = Path()
        self.start()
        host = quote(str(self._socket_folder), safe="")
        self.dsn = f"postgresql://{cluster.ROLE}@/{cluster.DATABASE}?host={host}"

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.home / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        launch = prepare_launch(self.home, self._settings, throwaway=False)
        self._socket_folder = Path(launch.order["socket_folder"])
        self._kill_orphans()
        # Inherited by all processes of the server, of which some outlive it and hold its memory.
        server_lock = locks.open_owned(self.home / "server", os.O_RDWR)
        wait_until(lambda: _takes(server_lock), what="the old server is gone")
        identity: dict[str, Any] = launch.order["identity"]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch.order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=launch.order["environment"],
                pass_fds=(server_lock,),
                **identity,
            )
        os.close(server_lock)
        wait_until(lambda: self._is_ready(launch.data), what="the server accepts connections")

    def stop(self, how: signal.Signals = FAST) -> None:
        """Stop it, and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()

    def _kill_orphans(self) -> None:
        """Kill what a server that has died has left behind, where the system tells of it.

        They notice by themselves; but a checkpointer was seen to stay when the disk was full.
        """
        lock = str((self.home / "server").resolve())
        for opened in Path("/proc").glob("[0-9]*/fd/*"):
            pid = int(opened.parts[2])
            with contextlib.suppress(OSError):
                # Gone meanwhile, or not ours to look at.
                if pid != os.getpid() and str(opened.readlink()) == lock:
                    os.kill(pid, signal.SIGKILL)

    def restart(self, how: signal.Signals) -> None:
        """Stop it and start it again."""
        self.stop(how)
        self.start()

    def is_alive(self) -> bool:
        """Whether it has not ended, by itself or otherwise."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it, and remove what is ours."""
        if self.is_alive():
            self.stop(IMMEDIATE)
        self._kill_orphans()
        wait_until(lambda: not locks.is_held(self.home / "server"), what="the server is gone")
        shutil.rmtree(self._socket_folder, ignore_errors=True)
        if self._is_ours:
            data = self.home / "data"
            if data.is_symlink():
                shutil.rmtree(data.readlink().parent)
            shutil.rmtree(self.home.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_ready(self, data: Path) -> bool:
        assert self.is_alive(), f"the server has ended: {self.log[-2000:]}"
        running = cluster.read_postmaster(data)
        assert self._process is not None
        return running is not None and running.pid == self._process.pid and running.is_ready


def _takes(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
