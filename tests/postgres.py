"""The databases of a test session, on a Citus too."""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from tests import citus
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_database"]

_numbers = itertools.count(1)


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
