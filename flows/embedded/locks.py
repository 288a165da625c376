"""File locks that the kernel drops when the last process that has them open is gone.

`flock` belongs to the open file, not to the process: a forked child inherits it, and it ends when
every copy is closed, by `close`, `exec` or death, SIGKILL included. `LOCK_UN` in any of them ends
it for all, so a shared hold is only ever closed, never unlocked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from typing import TYPE_CHECKING

from flows import clock
from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["exclusive", "is_held", "open_owned", "shared"]

_POLL_S = 0.01
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


def open_owned(path: Path, flags: int) -> int:
    """Open or create a file that belongs to the owner of its folder, readable by no one else."""
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedError(f"cannot open {path}: {error.strerror}; {_owner_of(path)}") from error
    if os.geteuid() == 0 and os.fstat(fd).st_uid == 0:
        # Root in somebody's project must not lock its owner out.
        folder = path.parent.stat()
        os.fchown(fd, folder.st_uid, folder.st_gid)
    return fd


def shared(path: Path, *, timeout_s: float, what: str) -> int:
    """Take a shared lock and return the descriptor that holds it until it is closed.

    Args:
        path: the file, created if it is not there.
        timeout_s: how long to try.
        what: what the present holder is doing, for the message, as in "is stopping".

    Raises:
        EmbeddedError: it was not to be had in time.
    """
    fd = open_owned(path, os.O_RDWR)
    try:
        _lock(fd, fcntl.LOCK_SH, path, timeout_s, what)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def exclusive(path: Path, *, timeout_s: float, what: str) -> Iterator[None]:
    """Hold an exclusive lock.

    Raises:
        EmbeddedError: it was not to be had in time.
    """
    fd = open_owned(path, os.O_RDWR)
    try:
        _lock(fd, fcntl.LOCK_EX, path, timeout_s, what)
        try:
            yield
        finally:
            # Another thread may have forked meanwhile, and its child would keep the lock for life.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Tell whether some process has the file locked exclusively."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(fd: int, operation: int, path: Path, timeout_s: float, what: str) -> None:
    deadline = clock.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.monotonic() > deadline:
                raise EmbeddedError(
                    f"gave up after {timeout_s:g} s: another process {what} ({path} is locked)"
                ) from None
            pause.wait(_POLL_S)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise EmbeddedError(
                f"the file system of {path} has no file locks; keep the project on a local disk,"
                " or use a database of your own with --dsn or FLOWS_DATABASE_URL"
            ) from error
        else:
            return


def _owner_of(path: Path) -> str:
    try:
        uid = path.parent.stat().st_uid
    except OSError:
        return "its folder cannot be read"
    if uid == os.geteuid():
        return "is the disk writable, and not full?"
    return f"{path.parent} belongs to user id {uid}, and you are {os.geteuid()}"
