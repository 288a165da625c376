"""Migrations: the same tables by every way, in any schema, and a check of what is there."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from flows import (
    SCHEMA_SQL,
    ConfigError,
    Context,
    DBConfig,
    Registry,
    SchemaError,
    check_version,
    migrate,
    schema_sql_for,
    sql,
)
from flows.schema import SCHEMA_VERSION
from tests.running import Runs
from tests.waiting import wait_for_lock_wait

COLUMNS = """
    SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = to_regnamespace(%s) ORDER BY 1, 2, 3
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 2"
TABLES = {
    "runs",
    "crashes",
    "steps",
    "waits",
    "events",
    "random",
    "cancellations",
    "schedules",
    "workers",
    "migrations",
}

# So that the latest is version 0.
OLDER = """
    UPDATE flows.migrations SET version = version - (SELECT max(version) FROM flows.migrations)
"""


def describe(connection: psycopg.Connection[Any], schema: str = "flows") -> list[str]:
    """Return everything of a schema's tables as text, whatever the schema is called."""
    quoted = f'"{schema}"'
    # Or names would be written without their schema where that is the user's own.
    connection.execute("SET search_path = public")
    found = [
        " | ".join(map(str, row))
        for query, name in ((COLUMNS, schema), (CONSTRAINTS, quoted), (INDEXES, schema))
        for row in connection.execute(query, (name,)).fetchall()
    ]
    return [each.replace(quoted + ".", "flows.").replace(schema + ".", "flows.") for each in found]


def test_migrate_creates_the_tables_and_again_does_nothing(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        assert migrate(connection) == list(range(1, SCHEMA_VERSION + 1))
        before = describe(connection)
        assert {row[0] for row in connection.execute(COLUMNS, ("flows",)).fetchall()} == TABLES
        assert migrate(connection) == []
        assert describe(connection) == before
        check_version(connection)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_tables_of_each_earlier_version_are_brought_to_this_one(dsn: str, version: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
        expected = describe(connection)
        connection.execute("DROP SCHEMA flows CASCADE")
        for _, text in sql.migration_files()[:version]:
            connection.execute(text.encode())
        with pytest.raises(SchemaError, match=f"is of version {version}, this code needs"):
            check_version(connection)
        assert migrate(connection) == list(range(version + 1, SCHEMA_VERSION + 1))
        assert describe(connection) == expected


def test_a_run_goes_on_over_a_migration(dsn: str) -> None:
    """Its memos from before have no places, and those from afterwards have."""
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        first = wf.execute("first/v1", lambda: 1)
        return [first, wf.wait_for_event("go/v1", "Go"), wf.execute("last/v1", lambda: 3)]

    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
    runs = Runs(dsn)
    key = runs.execute(registry, demo)
    for table in ("steps", "waits", "random"):
        runs.connection.execute(f"ALTER TABLE flows.{table} DROP COLUMN place".encode())
    runs.connection.execute("DELETE FROM flows.migrations WHERE version >= 9")
    migrate(runs.connection)
    runs.publish(key, "Go", 2)
    runs.execute_due(registry)
    assert runs.output(key) == [1, 2, 3]
    places = runs.rows("SELECT step_key, place IS NULL FROM flows.steps ORDER BY 1")
    assert places == [("first/v1", True), ("last/v1", False)]
    runs.close()


def test_migrate_commits_unless_the_caller_has_begun_a_transaction(dsn: str) -> None:
    with psycopg.connect(dsn) as connection, psycopg.connect(dsn, autocommit=True) as other:
        with connection.transaction(force_rollback=True):
            migrate(connection)
            check_version(connection)
        with pytest.raises(SchemaError):
            check_version(other)
        migrate(connection)
        check_version(other)


@pytest.mark.parametrize(
    "options", [{"autocommit": True}, {"row_factory": dict_row}, {"prepare_threshold": 0}]
)
def test_migrate_and_check_work_on_any_connection(dsn: str, options: dict[str, Any]) -> None:
    with psycopg.connect(dsn, **options) as connection:
        migrate(connection)
        check_version(connection)
        connection.execute(OLDER)
        with pytest.raises(SchemaError):
            check_version(connection)
        # A refusal leaves the transaction usable.
        connection.execute("SELECT 1")


def test_the_text_gives_the_same_schema_as_migrate(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SCHEMA_SQL)
        by_text = describe(connection)
        check_version(connection)
        assert migrate(connection) == []
        connection.execute("DROP SCHEMA flows CASCADE")
        migrate(connection)
        assert describe(connection) == by_text
        assert schema_sql_for("flows") == SCHEMA_SQL


@pytest.mark.parametrize("schema", ["other", "MixedCase", "_1", "s" * 63])
def test_another_schema_has_the_same_tables_by_either_way(dsn: str, schema: str) -> None:
    config = DBConfig(schema=schema)
    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection)
        expected = describe(connection)
        connection.execute("DROP SCHEMA flows CASCADE")
        migrate(connection, config)
        assert describe(connection, schema) == expected
        connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
        connection.execute(schema_sql_for(schema))
        assert describe(connection, schema) == expected
        check_version(connection, config)
        assert connection.execute("SELECT to_regnamespace('flows')").fetchone() == (None,)


def test_everything_works_in_another_schema(dsn: str) -> None:
    config = DBConfig(schema="MixedCase", shard_count=2)
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        wf.tx.execute("CREATE TABLE IF NOT EXISTS business ()")
        wf.execute("step/v1", lambda: 1)
        wf.random_uint64("salt/v1")
        return wf.wait_for_event("number/v1", "Number")

    with psycopg.connect(dsn, autocommit=True) as connection:
        migrate(connection, config)
    runs = Runs(dsn, config)
    runs.start(registry)
    keys = [runs.begin(demo), *runs.client.begin_many_tx(runs.connection, demo, [None])]
    for key in keys:
        runs.wait_for(key, "waiting_event")
        runs.publish(key, "Number", 3)
        runs.wait_for(key, "completed")
        assert runs.output(key) == 3
    runs.client.cancel_run_tx(runs.connection, runs.begin("other"))
    runs.close()


def test_two_that_migrate_at_once_do_it_one_after_the_other(dsn: str) -> None:
    applied: list[list[int]] = []

    def migrate_too() -> None:
        with psycopg.connect(dsn) as connection:
            applied.append(migrate(connection))

    with psycopg.connect(dsn) as first:
        with first.transaction():
            assert migrate(first) == list(range(1, SCHEMA_VERSION + 1))
            other = threading.Thread(target=migrate_too)
            other.start()
            wait_for_lock_wait(dsn)
        other.join(10)
    assert applied == [[]]


@pytest.mark.parametrize(
    ("schema", "command"), [("flows", "flows migrate"), ("other", "flows migrate --schema other")]
)
def test_missing_tables_are_an_error_that_names_the_command(
    dsn: str, schema: str, command: str
) -> None:
    with psycopg.connect(dsn) as connection:
        with pytest.raises(SchemaError, match=f"schema '{schema}' has no flows tables") as caught:
            check_version(connection, DBConfig(schema=schema))
        assert str(caught.value).endswith(f"run: {command}")
        connection.execute("SELECT 1")


def test_tables_of_an_older_version_are_an_error_that_names_the_command(flows_dsn: str) -> None:
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        connection.execute(OLDER)
        with pytest.raises(SchemaError, match=r"is of version 0, this code needs .*flows migrate"):
            check_version(connection)


def test_tables_of_a_newer_version_are_left_alone(flows_dsn: str) -> None:
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO flows.migrations (version, name) VALUES (%s, 'later')",
            (SCHEMA_VERSION + 1,),
        )
        before = describe(connection)
        for use in (check_version, migrate):
            with pytest.raises(SchemaError, match=r"newer than this code.*install a newer"):
                use(connection)
        assert describe(connection) == before


@pytest.mark.parametrize("schema", ["", "a b", 'a"b', "pg_flows", "x" * 64])
def test_an_invalid_schema_name_is_refused_and_not_replaced(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        schema_sql_for(schema)
