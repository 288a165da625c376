"""Fixtures: runs of a test, on a database that it finds empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests import citus
from tests.integration.ledger import TABLES
from tests.postgres import new_database
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

# Emptying a database is several times faster than copying one for each test.
_EMPTY = (
    "DELETE FROM flows.runs",
    "DELETE FROM flows.schedules",
    "DELETE FROM flows.workers",
)
_EMPTY_PUBLIC = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"

# Without its schema Citus would be gone as well.
_EMPTY_PUBLIC_OF_CITUS = """
    DO $$
    DECLARE
        name regclass;
    BEGIN
        FOR name IN
            SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        LOOP
            EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', name);
        END LOOP;
    END
    $$
"""


@pytest.fixture(scope="session")
def shared_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """The DSN of a database that tests use one after the other."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        with psycopg.connect(dsn) as connection:
            # The user may be called flows, and "$user" comes first by default.
            set_path = sql.SQL("ALTER DATABASE {} SET search_path = public").format(name)
            connection.execute(set_path)
        yield dsn


@pytest.fixture
def runs(shared_dsn: str) -> Iterator[Runs]:
    """Runs in the default schema, with one shard a workflow, and none there yet."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        for statement in _EMPTY:
            connection.execute(statement)
        is_citus = citus.given_dsn() is not None
        connection.execute(_EMPTY_PUBLIC_OF_CITUS if is_citus else _EMPTY_PUBLIC)
    runs = Runs(shared_dsn)
    yield runs
    runs.close()


@pytest.fixture
def ledger(runs: Runs) -> None:
    """The business tables of `tests.integration.ledger`."""
    for statement in TABLES:
        runs.connection.execute(statement)
