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

# What another test would find changed, and fail by. Triggers go with their functions in public.
_SHAPE = """
    SELECT a.attrelid::regclass::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'flows'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'flows'::regnamespace
    UNION ALL
    SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'flows'::regnamespace
"""

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
    """Runs in the default schema, with one shard a workflow, and none there yet.

    A test that alters the tables takes `own_runs`, or puts them back as they were.
    """
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        for statement in _EMPTY:
            connection.execute(statement)
        is_citus = citus.given_dsn() is not None
        connection.execute(_EMPTY_PUBLIC_OF_CITUS if is_citus else _EMPTY_PUBLIC)
        shape = set(connection.execute(_SHAPE))
    runs = Runs(shared_dsn)
    yield runs
    runs.close()
    with psycopg.connect(shared_dsn) as connection:
        assert set(connection.execute(_SHAPE)) == shape, "this test altered what all tests share"


@pytest.fixture
def own_runs(flows_dsn: str) -> Iterator[Runs]:
    """Runs in a database of the test's own, whose tables it may alter."""
    runs = Runs(flows_dsn)
    yield runs
    runs.close()


@pytest.fixture
def ledger(runs: Runs) -> None:
    """The business tables of `tests.integration.ledger`."""
    for statement in TABLES:
        runs.connection.execute(statement)
