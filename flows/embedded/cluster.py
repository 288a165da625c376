"""The data folder of an embedded server: creation, versions, and what a crash left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import EmbeddedError

if TYPE_CHECKING:
    from flows.embedded.account import Account
    from flows.embedded.binaries import Binaries

__all__ = [
    "DATABASE",
    "ROLE",
    "Postmaster",
    "check_version",
    "create_cluster",
    "data_version",
    "forget_dead_server",
    "last_lines",
    "read_postmaster",
]

ROLE = DATABASE = "flows"

_SETTINGS = """
# From flows; this file is yours to edit.
listen_addresses = ''              # the socket only, in a folder that nobody else can enter
max_connections = 200
shared_buffers = 128MB
autovacuum_naptime = 15s           # queue tables change fast
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What a running server says of itself in `postmaster.pid`."""

    pid: int
    socket_folder: Path
    is_ready: bool


def read_postmaster(data: Path) -> Postmaster | None:
    """Return what `postmaster.pid` says, None if there is none or it is still being written.

    The file outlives a server that was killed: only a lock tells whether it is alive.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < 5 or not lines[0].isdigit():
        return None
    return Postmaster(
        pid=int(lines[0]),
        socket_folder=Path(lines[4]),
        is_ready=len(lines) >= 8 and lines[7].startswith("ready"),
    )


def data_version(data: Path) -> int | None:
    """Return the major version that wrote a data folder, None if there is no folder yet.

    Raises:
        EmbeddedError: there is a folder, and it is not PostgreSQL's.
    """
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        if data.is_dir() and any(data.iterdir()):
            raise EmbeddedError(
                f"{data} is not a data folder of PostgreSQL (no PG_VERSION in it);"
                " move it away, and flows creates a new one"
            ) from None
        return None
    except (ValueError, OSError) as error:
        raise EmbeddedError(f"cannot read {data / 'PG_VERSION'}: {error}") from error


def check_version(data: Path, written_by: int | None, binaries: Binaries) -> None:
    """Check that these programs can run on the data.

    Raises:
        EmbeddedError: another major version wrote it.
    """
    if written_by is None or written_by == binaries.major:
        return
    raise EmbeddedError(
        f"the data in {data} was written by PostgreSQL {written_by}, but the programs in"
        f" {binaries.folder} are PostgreSQL {binaries.major}. Name a folder with those of"
        f" {written_by} in FLOWS_PG_BIN; or, with them, pg_dump the data, remove {data} and restore"
        f" it; or remove {data} to begin with an empty database"
    )


def create_cluster(data: Path, binaries: Binaries, account: Account) -> None:
    """Create a cluster with the database `flows` in it, whole or not at all.

    The caller holds the lock under which clusters are created.

    Raises:
        EmbeddedError: PostgreSQL's own programs failed; the message ends with what they said.
    """
    for left_over in data.parent.glob("new-data-*"):
        # Of an initdb that was killed.
        shutil.rmtree(left_over)
    try:
        new = Path(tempfile.mkdtemp(prefix="new-data-", dir=data.parent))
    except OSError as error:
        raise EmbeddedError(f"cannot write to {data.parent}: {error.strerror}") from error
    try:
        if account.is_stand_in:
            os.chown(new, account.uid, account.gid)
        locale = ("--encoding=UTF8", "--locale=C")
        owner = ("--username", ROLE, "--auth=trust")
        _succeed(
            account.run([binaries.initdb, "-D", new, *owner, *locale, "--no-instructions"]),
            f"cannot create a database in {data.parent}",
        )
        _write_settings(new)
        _succeed(
            account.run(
                [binaries.postgres, "--single", "-D", new, "postgres"],
                input_text=f"CREATE DATABASE {DATABASE}\n",
            ),
            f"cannot create the database {DATABASE!r}",
        )
        new.rename(data)
    except OSError as error:
        raise EmbeddedError(f"cannot create {data}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_settings(data: Path) -> None:
    with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(_SETTINGS)
    # No host lines: even if TCP is switched on in the settings, nobody gets in by it unasked.
    (data / "pg_hba.conf").write_text("local all all trust\n", encoding="utf-8")


def _succeed(result: subprocess.CompletedProcess[str], failure: str) -> None:
    if result.returncode != 0:
        said = "".join(f"\n  {line}" for line in result.stdout.strip().splitlines()[-8:])
        raise EmbeddedError(f"{failure}; PostgreSQL said:{said}")


def forget_dead_server(data: Path) -> None:
    """Remove the `postmaster.pid` of a server that was killed.

    PostgreSQL refuses to start when the number in it belongs to any living process of its user,
    as it often does in a container that was started again. The caller knows by the lock that no
    server of ours is alive.

    Raises:
        EmbeddedError: a server that was started by other means runs there.
    """
    postmaster = read_postmaster(data)
    if postmaster is None:
        return
    if _runs_in(postmaster.pid, data):
        raise EmbeddedError(
            f"a PostgreSQL that flows did not start runs in {data} (process {postmaster.pid});"
            f" stop it first: kill -INT {postmaster.pid}"
        )
    (data / "postmaster.pid").unlink()


def _runs_in(pid: int, data: Path) -> bool:
    """Tell whether a process is a server of this data folder, which it makes its own folder."""
    if Path("/proc/self/cwd").exists():
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # Gone, or another user's: the server of this data runs as its owner.
            return False
    result = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "postgres" in result.stdout


def last_lines(log: Path, start: int, count: int = 10) -> str:
    """Return the last lines of a server's log, from the offset `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "".join(f"\n  {line}" for line in lines[-count:])
