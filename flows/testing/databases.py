"""Databases of tests: a server that is gone with them, and a database for each."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows import embedded
from flows.database import check_dsn
from flows.embedded import locks
from flows.schema import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_database", "throwaway_server"]

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # plans and figures must not depend on when it comes by
    "max_wal_size": "1GB",
}

MEMORY = Path("/dev/shm")  # noqa: S108  a new folder in it
ROOM = 4 * 1024**3
"""Bytes that must be free there."""


@contextlib.contextmanager
def throwaway_server() -> Iterator[str]:
    """Run a PostgreSQL of our own, and yield the DSN of its maintenance database.

    It works as root too. Its data are in memory where `/dev/shm` has 4 GiB free. Its watchdog
    removes it, also when this process is killed; where both are, the next server in memory does.

    Raises:
        EmbeddedError: there are no PostgreSQL programs, or they do not start; says what to do.
    """
    folder = _folder()
    if folder == MEMORY:
        _sweep(folder)
    home = folder / f"flows-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        server = embedded.start(home, throwaway=True, settings=_SETTINGS)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    with server:
        try:
            yield make_conninfo(server.dsn, dbname="postgres")
        finally:
            embedded.stop(home)


def _folder() -> Path:
    """In memory if possible: a database is 700 files, and a disk may take 0.2 s to copy them."""
    if MEMORY.is_mount() and os.access(MEMORY, os.W_OK | os.X_OK):
        free = os.statvfs(MEMORY)
        if free.f_bavail * free.f_frsize >= ROOM:
            return MEMORY
    return Path(tempfile.gettempdir())


def _sweep(folder: Path) -> None:
    """Remove servers that were killed with their watchdogs: nobody else gives the memory back."""
    for home in folder.glob("flows-test-*"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, too
            if _is_abandoned(home):
                socket_folder = (home / "socket").read_text(encoding="utf-8").strip()
                for path in (socket_folder, home):
                    shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(home: Path) -> bool:
    # What is another user's may say that its socket is anywhere.
    if home.lstat().st_uid != os.geteuid() or home.is_symlink():
        return False
    # The starter holds `lock` before it creates `server`, the last of the files, and until the
    # watchdog holds its own.
    if not (home / "server").exists():
        return False
    return not any(locks.is_held(home / name) for name in ("lock", "watchdog", "server"))


@contextlib.contextmanager
def new_database(server_dsn: str, template: str | None = None) -> Iterator[str]:
    """Yield the DSN of a new database with the tables, dropped afterwards whoever is connected.

    Args:
        server_dsn: any database of the server, of a user who may create others.
        template: the DSN of another one, which is copied. Nobody may be connected to it. Without,
            the tables are created, which takes longer.

    Raises:
        ConfigError: `server_dsn` cannot be read.
        psycopg.Error: the server cannot be reached, or the user may not create databases.
    """
    name = f"flows_test_{secrets.token_hex(8)}"
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        copied = sql.Identifier(str(conninfo_to_dict(template)["dbname"]))
        create = sql.SQL("{} TEMPLATE {}").format(create, copied)
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    dsn = make_conninfo(check_dsn(server_dsn), dbname=name)
    with psycopg.connect(server_dsn, autocommit=True) as server:
        server.execute(create)
        try:
            if template is None:
                with psycopg.connect(dsn) as connection:
                    migrate(connection)
            yield dsn
        finally:
            server.execute(drop)
