"""A Citus cluster under the tests: the same databases on each of its nodes.

`FLOWS_TEST_CITUS_DSN` is the DSN of a superuser of the coordinator, in a database where the worker
nodes were added. Each node must be reachable from here under the name and port that it was added
with, as the same user. Run the tests in one process: two may fail that set up a cluster at once.
"""

from __future__ import annotations

import os
from functools import cache

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.schema import migrate

__all__ = [
    "VARIABLE",
    "as_template",
    "distribute_tables",
    "given_dsn",
    "join_nodes",
    "nodes",
    "not_on_citus",
]

VARIABLE = "FLOWS_TEST_CITUS_DSN"

_NODES = """
    SELECT nodename, nodeport FROM pg_dist_node
    WHERE noderole = 'primary' AND groupid <> 0 ORDER BY nodeid
"""

# Few, so that what goes to all of them is quick; more than nodes, so that nodes hold several.
_SHARD_COUNT = 6


def given_dsn() -> str | None:
    """Return the DSN of the coordinator, None where the tests run on plain PostgreSQL."""
    return os.environ.get(VARIABLE) or None


def not_on_citus(reason: str) -> pytest.MarkDecorator:
    """Return a mark for tests that cannot be made on Citus, and say why not."""
    return pytest.mark.skipif(given_dsn() is not None, reason=f"on Citus {reason}")


@cache
def nodes(coordinator_dsn: str) -> list[str]:
    """Return the DSNs of the worker nodes."""
    with psycopg.connect(coordinator_dsn) as connection:
        rows = connection.execute(_NODES).fetchall()
    assert rows, f"the database of {VARIABLE} has no worker nodes: add them with citus_add_node"
    return [make_conninfo(coordinator_dsn, host=name, port=port) for name, port in rows]


def join_nodes(coordinator_dsn: str, database_dsn: str) -> None:
    """Make of equal databases on all nodes one that is distributed."""
    name = conninfo_to_dict(database_dsn)["dbname"]
    workers = nodes(coordinator_dsn)
    for node in workers:
        with psycopg.connect(make_conninfo(node, dbname=name), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION citus")
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION citus")
        with psycopg.connect(coordinator_dsn) as given:
            (host, port) = given.execute(
                "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid = 0"
            ).fetchone() or (None, None)
        if host is not None:
            connection.execute("SELECT citus_set_coordinator_host(%s, %s)", (host, port))
        for node in workers:
            at = conninfo_to_dict(node)
            add = "SELECT citus_add_node(%s::text, %s::int)"
            connection.execute(add, (at["host"], at["port"]))


def distribute_tables(database_dsn: str) -> None:
    """Create the tables and distribute them."""
    with psycopg.connect(database_dsn) as connection:
        connection.execute(f"SET citus.shard_count = {_SHARD_COUNT}".encode())
        migrate(connection, citus=True)


def as_template(coordinator_dsn: str, database_dsn: str) -> str:
    """End every session of a database, Citus's own too, and admit no more; return its name."""
    name = str(conninfo_to_dict(database_dsn)["dbname"])
    close = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
    for server in (coordinator_dsn, *nodes(coordinator_dsn)):
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(close)
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
    return name
