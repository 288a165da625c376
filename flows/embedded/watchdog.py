"""The parent of an embedded server: stops it when the last process that uses it is gone.

A program of its own: `python -I -S watchdog.py ORDER`, with nothing but the standard library, so
that it starts in milliseconds, stays small and outlives the process that started it.

Locks in the home of the cluster, all `flock`, dropped by the kernel even on SIGKILL:

    users     shared by every process that uses the server; the watchdog waits for it exclusively
    watchdog  exclusive, by the watchdog, as long as it lives; its content is the process id
    server    exclusive, inherited by the server and its children: free once the last is gone

    starting ──ready──> serving ──"users" acquired, or SIGTERM──> stopping ──> gone
        └──exits──> gone   └──dies──> starting again, at most 5 times

SIGUSR1 keeps the server after its last user, until SIGTERM. The server dies with the watchdog on
Linux (PR_SET_PDEATHSIG); elsewhere the next start finds the orphan by its lock and stops it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watchdog", "main"]

POLL_S = 0.01
SERVER_LOCK_S = 20.0
MAX_RESTARTS = 5
SHUTDOWN = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""Fast, immediate, by force: each with the seconds it is given."""

_PR_SET_PDEATHSIG = 1


class Watchdog:
    """Runs one server.

    Args:
        order: `home`, `data` and `socket_folder`; `command`, the server's; `identity`, the
            arguments of `subprocess` for the user to run it as; `environment`; `is_throwaway`,
            whether the home is removed at the end; `reply_fd`, where to say `ready`, `busy` or
            `failed`.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._home = Path(order["home"])
        self._reply_fd: int | None = order["reply_fd"]
        self._lock_fd = -1
        self._server: subprocess.Popen[bytes] | None = None
        self._must_stop = False
        self._is_kept = False
        self._is_ready = False
        self._released_fd, self._release_fd = os.pipe()
        self._signal_fd, signalled_fd = os.pipe()
        os.set_blocking(self._signal_fd, False)
        os.set_blocking(signalled_fd, False)
        # A handler even where there is nothing to do: an ignored signal would stay ignored in the
        # server, and a SIGINT in its first milliseconds would be lost.
        for received in (*_ACTED_ON, signal.SIGINT, signal.SIGHUP):
            signal.signal(received, lambda *_: None)
        signal.set_wakeup_fd(signalled_fd)

    def run(self) -> None:
        """Serve until nobody uses the server any more, it cannot be kept up, or SIGTERM."""
        self._lock_fd = self._open("watchdog")
        if not _try_lock(self._lock_fd):
            self._reply("busy")
            return
        os.ftruncate(self._lock_fd, 0)
        os.write(self._lock_fd, f"{os.getpid()}\n".encode())
        for _ in range(1 + MAX_RESTARTS):
            self._spawn()
            self._serve()
            if self._must_stop or not self._is_ready:
                break
            self._log("the server has died; starting it again")
        self._stop()
        self._clean_up()

    def _spawn(self) -> None:
        """Start the server, once the last process of an earlier one is gone."""
        self._is_ready = False
        identity: dict[str, Any] = self._order["identity"]
        server_lock = self._open("server")
        try:
            if not self._wait_for_lock(server_lock):
                self._give_up("processes of an earlier server are still running")
                return
            self._server = subprocess.Popen(  # noqa: S603  the command comes from flows.embedded
                self._order["command"],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=self._order["environment"],
                umask=0o077,
                pass_fds=(server_lock,),
                preexec_fn=_death_with_parent(),  # noqa: PLW1509  the thread below only waits
                user=identity.get("user"),
                group=identity.get("group"),
                extra_groups=identity.get("extra_groups"),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._give_up(f"it cannot be run: {error}")
        finally:
            os.close(server_lock)
        if threading.active_count() == 1:
            threading.Thread(target=self._wait_for_users, daemon=True).start()

    def _serve(self) -> None:
        """Return when the server has exited or must stop."""
        server = self._server
        while server is not None and server.poll() is None and not self._must_stop:
            if not self._is_ready and self._accepts_connections(server.pid):
                self._is_ready = True
                self._reply("ready")
            self._wait(None if self._is_ready else POLL_S)
        if server is not None and server.returncode is not None and not self._is_ready:
            self._give_up(_describe_exit(server.returncode))

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for a signal, the end of the last user, or the timeout, and take note of it."""
        watched = [self._signal_fd] if self._must_stop else [self._signal_fd, self._released_fd]
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if self._released_fd in readable:
            self._must_stop = True
        if self._signal_fd in readable:
            received = os.read(self._signal_fd, 256)
            self._must_stop = self._must_stop or signal.SIGTERM in received
            if signal.SIGUSR1 in received and not self._is_kept:
                self._is_kept = True
                os.write(self._lock_fd, b"kept\n")

    def _wait_for_users(self) -> None:
        # A thread of its own, because flock has no timeout. Who asks for the server to be kept
        # holds the lock until the answer is in the file, so `_is_kept` is decided by then.
        fd = self._open("users")
        fcntl.flock(fd, fcntl.LOCK_EX)
        if self._is_kept:
            os.close(fd)
        else:
            os.write(self._release_fd, b"\0")

    def _wait_for_lock(self, fd: int) -> bool:
        deadline = time.monotonic() + SERVER_LOCK_S
        while not _try_lock(fd):
            if self._must_stop or time.monotonic() > deadline:
                return False
            self._wait(POLL_S)
        return True

    def _accepts_connections(self, pid: int) -> bool:
        try:
            lines = (Path(self._order["data"]) / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of an earlier server may still be there; the eighth line is the last written.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].startswith("ready")

    def _stop(self) -> None:
        self._must_stop = True
        server = self._server
        if server is None:
            return
        for signum, patience_s in SHUTDOWN:
            if server.poll() is None:
                server.send_signal(signum)
            deadline = time.monotonic() + patience_s
            while server.poll() is None and time.monotonic() < deadline:
                self._wait(deadline - time.monotonic())

    def _clean_up(self) -> None:
        # A server that was killed leaves its socket in it.
        shutil.rmtree(self._order["socket_folder"])
        if self._order["is_throwaway"]:
            data = Path(self._order["data"])
            shutil.rmtree(data if data.parent == self._home else data.parent)
            for path in self._home.iterdir():
                # The last to go: whoever waits for the end looks at this lock.
                if path.name != "watchdog":
                    path.unlink()
            (self._home / "watchdog").unlink()
            self._home.rmdir()

    def _give_up(self, reason: str) -> None:
        self._must_stop = True
        self._log(reason)
        self._reply("failed", reason)

    def _reply(self, state: str, reason: str = "") -> None:
        if self._reply_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                # The process that started us may be gone; another may use the server.
                os.write(self._reply_fd, json.dumps({"state": state, "reason": reason}).encode())
            os.close(self._reply_fd)
            self._reply_fd = None

    def _open(self, name: str) -> int:
        return os.open(
            self._home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600
        )

    def _log(self, text: str) -> None:
        sys.stderr.write(f"flows watchdog [{os.getpid()}] {text}\n")
        sys.stderr.flush()


_ACTED_ON = (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _death_with_parent() -> Callable[[], None] | None:
    """Return what makes the server shut down when this process is killed, where that exists."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _describe_exit(returncode: int) -> str:
    if returncode < 0:
        return f"it was killed by {signal.Signals(-returncode).name}"
    return f"it exited with status {returncode}"


def main() -> None:
    """Run the order given as argument, in a process that is nobody's child."""
    order = json.loads(sys.argv[1])
    # The starter waits for the first process only: no zombie of ours stays among its children.
    if os.fork() != 0:
        os._exit(0)
    Watchdog(order).run()


if __name__ == "__main__":
    main()
