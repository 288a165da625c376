"""The throw-away PostgreSQL of a test session, and its databases."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from flows import embedded
from tests import citus
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_database", "throwaway_cluster"]

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # plans and figures must not depend on when it comes by
    "max_wal_size": "4GB",
}

_numbers = itertools.count(1)


@contextlib.contextmanager
def throwaway_cluster() -> Iterator[str]:
    """Run a PostgreSQL of our own, and yield the DSN of its maintenance database.

    Its watchdog removes it, also when this process is killed.
    """
    home = Path(tempfile.gettempdir()) / f"flows-test-{os.getpid()}-{secrets.token_hex(4)}"
    with embedded.start(home, throwaway=True, settings=_SETTINGS) as server:
        try:
            yield make_conninfo(server.dsn, dbname="postgres")
        finally:
            embedded.stop(home)


@contextlib.contextmanager
def new_database(server_dsn: str, template: str | None = None) -> Iterator[str]:
    """Yield the DSN of a database that is dropped afterwards, whoever is still connected.

    On Citus it is created on each node.
    """
    name = f"flows_test_{os.getpid()}_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        create = sql.SQL("{} TEMPLATE {}").format(create, sql.Identifier(template))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    close = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
    nodes = citus.nodes(server_dsn) if citus.given_dsn() else []
    with contextlib.ExitStack() as opened:
        servers = [
            opened.enter_context(psycopg.connect(server, autocommit=True))
            for server in (server_dsn, *nodes)
        ]
        for server in servers:
            server.execute(create)
            opened.callback(_drop, server, drop)
            if nodes:
                # On all of them before it is dropped on one: they connect to each other.
                opened.callback(server.execute, close)
        yield make_conninfo(server_dsn, dbname=name)


def _drop(server: psycopg.Connection[Any], drop: sql.Composed) -> None:
    def is_dropped() -> bool:
        try:
            server.execute(drop)
        except errors.ObjectInUse:
            return False  # by a process of Citus's own, which is not let in any more
        return True

    wait_until(is_dropped, what="the database is dropped", timeout_s=60)
