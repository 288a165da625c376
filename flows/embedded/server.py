"""Start, find and stop the embedded server of a project.

Every process that uses a server holds a shared lock; the server's watchdog stops it when the last
is gone (see `flows.embedded.watchdog`). The steps of a start, each safe to be killed in:

    shared lock on `users`     from here on a running server stays; waits while one is stopping
    exclusive lock on `lock`   one process at a time starts or stops
    a watchdog is there        wait until its server accepts connections
    none, but a server is      an orphan, whose watchdog was killed: stop it
    none                       create the data if there is none, start a watchdog, wait for its word
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote

from flows import clock
from flows.embedded import cluster, locks, placement
from flows.embedded.launch import prepare_launch
from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Server", "start", "stop", "url"]

T = TypeVar("T")

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0
_POLL_S = 0.01


@dataclass(slots=True)
class Server:
    """A running server, and this process's hold on it.

    The hold lasts until `close()` or the end of the process, whether or not this object is kept.
    A forked child has a hold of its own from then on; `close()` in one does not end the other's.

    Attributes:
        dsn: for the database `flows`, as its owner.
        home: the folder of the cluster.
        log: what the server says.
    """

    dsn: str
    home: Path
    log: Path
    _hold_fd: int | None

    def close(self) -> None:
        """End this process's hold; the server stops when nobody else holds it. Idempotent."""
        if self._hold_fd is not None:
            # Closed, not unlocked: children forked meanwhile hold the same lock.
            os.close(self._hold_fd)
            self._hold_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    home: Path,
    *,
    keep: bool = False,
    throwaway: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Server:
    """Start the server of `home`, or join the one that runs, and hold it.

    Leaves no thread and no child behind, so that it may be called before forking.

    Args:
        home: the folder of the cluster, created with its data if it is not there.
        keep: let it run after its last user, until `stop`.
        throwaway: remove `home` and everything in it when the server stops.
        settings: of PostgreSQL, over those in its configuration file; only for a server that this
            call starts.

    Raises:
        EmbeddedError: it cannot be started; the message says why and what to do.
    """
    home = placement.prepare_home(home)
    hold_fd = locks.shared(
        home / "users", timeout_s=STOP_TIMEOUT_S, what="is still stopping the server"
    )
    try:
        with _sole_control(home):
            data = _ensure_running(home, settings or {}, throwaway=throwaway)
            if keep:
                _keep(home)
        return Server(_dsn(data), home, home / "server.log", hold_fd)
    except OSError as error:
        os.close(hold_fd)
        raise EmbeddedError(
            f"cannot start the embedded server in {home}: {error}; mend that, or use a database of"
            " your own with --dsn or FLOWS_DATABASE_URL"
        ) from error
    except BaseException:
        os.close(hold_fd)
        raise


def stop(home: Path) -> bool:
    """Stop the server of `home` now, whoever uses it, and wait until it is gone.

    Sessions are ended and their transactions rolled back; the data stays.

    Returns:
        False if none was running.

    Raises:
        EmbeddedError: it would not stop.
    """
    home = home.absolute()
    if not (home / "lock").exists():
        return False
    with _sole_control(home):
        if locks.is_held(home / "watchdog"):
            os.kill(_watchdog_pid(home), signal.SIGTERM)
            _wait_until(
                lambda: not locks.is_held(home / "watchdog"), STOP_TIMEOUT_S, f"{home} to stop"
            )
            return True
        return _stop_orphan(home)


def url(home: Path) -> str:
    """Return the DSN of the running server of `home`, without holding it.

    Raises:
        EmbeddedError: none is running; says so where there is no database at all.
    """
    home = home.absolute()
    data = _data_of(home)
    if locks.is_held(home / "server") and (running := cluster.read_postmaster(data)):
        if running.is_ready:
            return _dsn(data)
        raise EmbeddedError(f"the embedded server of {home} is starting; try again in a moment")
    # A link that leads nowhere is not nothing: starting the server tells what has gone.
    if not os.path.lexists(data):
        remedy = "go to the folder where it is; flows db start would create an empty one here"
        raise EmbeddedError(f"there is no embedded database in {home}\n{remedy}")
    raise EmbeddedError(f"the embedded server of {home} is not running; start it: flows db start")


def _sole_control(home: Path) -> contextlib.AbstractContextManager[None]:
    return locks.exclusive(
        home / "lock", timeout_s=START_TIMEOUT_S, what="is starting or stopping the server"
    )


def _ensure_running(home: Path, settings: Mapping[str, str], *, throwaway: bool) -> Path:
    """Return the data folder of the server, which accepts connections."""
    deadline = clock.monotonic() + START_TIMEOUT_S
    while clock.monotonic() < deadline:
        if locks.is_held(home / "watchdog"):
            if _becomes_ready(home, deadline):
                return _data_of(home)
        else:
            _stop_orphan(home)
            launch = prepare_launch(home, settings, throwaway=throwaway)
            if launch.run(deadline):
                return launch.data
    raise EmbeddedError(f"the server of {home} did not start in {START_TIMEOUT_S:g} s")


def _becomes_ready(home: Path, deadline: float) -> bool:
    """Wait for the server of a watchdog that is there; False if the watchdog goes first."""
    pause = threading.Event()
    while locks.is_held(home / "watchdog"):
        running = cluster.read_postmaster(_data_of(home))
        if running is not None and running.is_ready and locks.is_held(home / "server"):
            if not running.socket_folder.is_dir():
                raise EmbeddedError(
                    f"the server of {home} runs where its socket {running.socket_folder} is"
                    " elsewhere, as in another container; stop it there"
                )
            return True
        if clock.monotonic() > deadline:
            raise EmbeddedError(
                f"the server of {home} did not become ready in time;"
                f" it may be recovering, see {home / 'server.log'}"
            )
        pause.wait(_POLL_S)
    return False


def _keep(home: Path) -> None:
    os.kill(_watchdog_pid(home), signal.SIGUSR1)
    _wait_until(
        lambda: "kept" in (home / "watchdog").read_text(encoding="ascii").split(),
        START_TIMEOUT_S,
        "the watchdog to answer",
    )


def _watchdog_pid(home: Path) -> int:
    words = _wait_until(
        lambda: (home / "watchdog").read_text(encoding="ascii").split(),
        START_TIMEOUT_S,
        "the watchdog to say its process id",
    )
    return int(words[0])


def _stop_orphan(home: Path) -> bool:
    """Stop a server whose watchdog was killed; False if there is none."""
    if not locks.is_held(home / "server"):
        return False
    running = cluster.read_postmaster(_data_of(home))
    if running is not None:
        with contextlib.suppress(ProcessLookupError):
            # Its children may outlive it for a moment; they have the lock as well.
            os.kill(running.pid, signal.SIGINT)
    _wait_until(lambda: not locks.is_held(home / "server"), STOP_TIMEOUT_S, "its server to stop")
    return True


def _data_of(home: Path) -> Path:
    data = home / "data"
    return data.readlink() if data.is_symlink() else data


def _dsn(data: Path) -> str:
    running = cluster.read_postmaster(data)
    if running is None:
        raise EmbeddedError(f"the server of {data} has just stopped")
    host = quote(str(running.socket_folder), safe="")
    return f"postgresql://{cluster.ROLE}@/{cluster.DATABASE}?host={host}"


def _wait_until(predicate: Callable[[], T], timeout_s: float, what: str) -> T:
    deadline = clock.monotonic() + timeout_s
    pause = threading.Event()
    while not (value := predicate()):
        if clock.monotonic() > deadline:
            raise EmbeddedError(f"gave up after {timeout_s:g} s waiting for {what}")
        pause.wait(_POLL_S)
    return value
