"""The schema: numbered migrations, the same as text, and the check that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from psycopg.rows import tuple_row

from flows import sql
from flows.config import DEFAULT_SCHEMA, DBConfig
from flows.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from flows.database import Connection

__all__ = [
    "CITUS_SCHEMA_SQL",
    "SCHEMA_SQL",
    "SCHEMA_VERSION",
    "check_version",
    "citus_schema_sql_for",
    "migrate",
    "schema_sql_for",
]

_MIGRATIONS = sql.migration_files()

SCHEMA_VERSION = _MIGRATIONS[-1][0]
"""The version of the tables that this code speaks."""

_LOCK_KEY = 0x666C6F7773
"""Advisory lock of a migration: the bytes of "flows"."""


def schema_sql_for(schema: str) -> str:
    """Return the whole schema as SQL text, which records what it applies.

    The same as `migrate` on an empty database.

    Raises:
        ConfigError: `schema` is not a valid name.
    """
    config = DBConfig(schema=schema)
    return "\n".join(sql.with_schema(text, config.schema) for _, text in _MIGRATIONS)


SCHEMA_SQL = schema_sql_for(DEFAULT_SCHEMA)


def citus_schema_sql_for(schema: str) -> str:
    """Return SQL text that distributes the tables over a Citus cluster.

    Run it on the coordinator after the text of `schema_sql_for`. Running it again does nothing.

    Raises:
        ConfigError: `schema` is not a valid name.
    """
    return sql.with_schema(sql.citus_file(), DBConfig(schema=schema).schema)


CITUS_SCHEMA_SQL = citus_schema_sql_for(DEFAULT_SCHEMA)


def migrate(
    connection: psycopg.Connection[Any], config: DBConfig | None = None, *, citus: bool = False
) -> list[int]:
    """Bring the tables to this version, in one transaction under an advisory lock.

    Commits, unless the caller has opened a transaction. Running it again does nothing.

    Args:
        connection: to the database; on Citus, to the coordinator.
        config: where the tables are.
        citus: distribute the tables over the nodes of Citus. Tables that are distributed stay so
            without it, and tables that a version adds join them.

    Returns:
        The versions applied now.

    Raises:
        ConfigError: `connection` is something else, such as a DSN.
        SchemaError: the tables are of a newer version than this code; or they are to be
            distributed, and the database has no Citus.
    """
    _check_connection(connection)
    schema = (config or DBConfig()).schema
    applied = []
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        if citus:
            _require_citus(cursor)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        present = _read_version(connection, schema) or 0
        _refuse_newer(present, schema)
        for version, text in _MIGRATIONS:
            if version > present:
                # One by one: Citus refuses several at once on tables that are distributed.
                for statement in sql.statements_of(sql.with_schema(text, schema)):
                    cursor.execute(statement.encode(), prepare=False)
                applied.append(version)
        if citus or _is_distributed(cursor, schema):
            cursor.execute(citus_schema_sql_for(schema).encode(), prepare=False)
    return applied


def check_version(connection: psycopg.Connection[Any], config: DBConfig | None = None) -> None:
    """Check that the tables are there and of this version.

    Raises:
        SchemaError: they are not; the message names the command to run.
    """
    schema = (config or DBConfig()).schema
    with connection.transaction():
        version = _read_version(connection, schema)
    option = "" if schema == DEFAULT_SCHEMA else f" --schema {schema}"
    if version is None:
        raise SchemaError(f"schema {schema!r} has no flows tables; run: flows migrate{option}")
    _refuse_newer(version, schema)
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"schema {schema!r} is of version {version}, this code needs {SCHEMA_VERSION};"
            f" run: flows migrate{option}"
        )


def _check_connection(connection: object) -> None:
    if isinstance(connection, psycopg.AsyncConnection) or not hasattr(connection, "transaction"):
        kind = type(connection).__name__
        raise ConfigError(
            f"the tables are made on a connection of psycopg, not on {kind}:"
            " with psycopg.connect(dsn) as connection: migrate(connection)"
        )


def _read_version(connection: psycopg.Connection[Any] | Connection, schema: str) -> int | None:
    try:
        # The savepoint keeps the caller's transaction usable where the table is missing.
        with connection.transaction(), connection.cursor() as cursor:
            cursor.row_factory = tuple_row
            row = cursor.execute(sql.load("read_schema_version", schema)).fetchone()
    except (pg.UndefinedTable, pg.InvalidSchemaName):
        return None
    return None if row is None else row[0]


def _has_citus(cursor: psycopg.Cursor[Any]) -> bool:
    cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'citus'")
    return cursor.fetchone() is not None


def _require_citus(cursor: psycopg.Cursor[Any]) -> None:
    if not _has_citus(cursor):
        raise SchemaError(
            "this database has no Citus to distribute the tables over;"
            " run CREATE EXTENSION citus in it and add the worker nodes"
        )


def _is_distributed(cursor: psycopg.Cursor[Any], schema: str) -> bool:
    if not _has_citus(cursor):
        return False
    query = "SELECT 1 FROM pg_dist_partition WHERE logicalrelid = %s::regclass"
    return cursor.execute(query, (f'"{schema}".runs',)).fetchone() is not None


def _refuse_newer(version: int, schema: str) -> None:
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"schema {schema!r} is of version {version}, newer than this code"
            f" ({SCHEMA_VERSION}); install a newer pgflows"
        )
