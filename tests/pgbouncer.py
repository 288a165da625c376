"""A PgBouncer of a test's own, in transaction mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.embedded.account import server_account
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needs_pgbouncer", "pgbouncer"]

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_PORT = 6432

needs_pgbouncer = pytest.mark.skipif(
    _PROGRAM is None, reason="PgBouncer is not installed (apt-get install pgbouncer)"
)


@contextlib.contextmanager
def pgbouncer(
    dsn: str, *, pool_size: int = 20, pool_mode: str = "transaction", **settings: str
) -> Iterator[str]:
    """Run a PgBouncer before a database, and yield the DSN that leads through it.

    It listens on a socket of its own, and as root runs as the user of the test's server.
    """
    assert _PROGRAM is not None
    folder = Path(tempfile.mkdtemp(prefix="flows-pgbouncer-"))
    account = server_account(folder)
    try:
        (folder / "pgbouncer.ini").write_text(
            _configuration(folder, dsn, pool_size, pool_mode, settings)
        )
        if account.is_stand_in:
            shutil.chown(folder, account.uid, account.gid)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [_PROGRAM, str(folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **account.identity,
            )
        try:
            pooled = make_conninfo(
                "", host=str(folder), port=_PORT, dbname="pooled", user=_user(dsn)
            )
            wait_until(lambda: _listens(folder), what=f"PgBouncer listens, see {folder}/log")
            yield pooled
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder)


def _configuration(
    folder: Path, dsn: str, pool_size: int, pool_mode: str, settings: dict[str, str]
) -> str:
    given = conninfo_to_dict(dsn)
    target = {name: given.get(name) for name in ("host", "port", "dbname", "password")}
    target["user"] = _user(dsn)
    place = " ".join(f"{name}='{value}'" for name, value in target.items() if value)
    options = {
        "listen_port": str(_PORT),
        "unix_socket_dir": str(folder),
        "auth_type": "any",
        "pool_mode": pool_mode,
        "default_pool_size": str(pool_size),
        "max_client_conn": "500",
        **settings,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    return f"[databases]\npooled = {place}\n\n[pgbouncer]\n{lines}"


def _user(dsn: str) -> str:
    given = conninfo_to_dict(dsn).get("user")
    if given:
        return str(given)
    with psycopg.connect(dsn) as connection:
        return connection.info.user


def _listens(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(folder / f".s.PGSQL.{_PORT}")) == 0
