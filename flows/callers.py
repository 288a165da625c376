"""Operations of a client, executed on whatever connection the caller has.

A caller's transaction is a psycopg connection, `wf.tx`, a connection or session of SQLAlchemy, or a
connection of Django. The libraries are not imported here: who passes their objects has done it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from flows import sql
from flows.errors import ConfigError, SchemaError
from flows.sql import arrays

if TYPE_CHECKING:
    from flows.operations import Operation

__all__ = ["HasConnection", "SupportsCursor", "Tx", "execute", "execute_async"]

C = TypeVar("C")
T = TypeVar("T")

_MISSING = (pg.UndefinedTable, pg.InvalidSchemaName)


class SupportsCursor(Protocol):
    """What a transaction must offer: a psycopg connection does, and so does `wf.tx`."""

    def cursor(self) -> Any:
        """Return a cursor in the transaction."""
        ...


class HasConnection(Protocol):
    """What a transaction of SQLAlchemy has, whether it is a connection or a session."""

    @property
    def connection(self) -> Any:
        """Return the connection, or be called for it."""
        ...


Tx = SupportsCursor | HasConnection
"""A transaction of the caller's."""


def execute(operation: Operation[T], tx: Any, schema: str) -> T:
    """Return what an operation returns whose statements are executed in `tx`.

    Raises:
        ConfigError: `tx` is no transaction that can be used here.
        SchemaError: the tables are missing.
    """
    try:
        # What is refused is refused before the transaction is touched.
        statement = next(operation)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # of a generator that returns T
    with _cursor(tx) as cursor:
        cursor.row_factory = tuple_row
        while True:
            if statement.has_arrays:
                arrays.register(cursor.adapters)
            if statement.may_be_alone:
                statement.values["is_alone"] = _is_alone(cursor.connection)
            try:
                cursor.execute(sql.load(statement.name, schema), statement.values)
                statement = operation.send(cursor.fetchall() if statement.is_read else [])
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            except _MISSING as error:
                raise _no_tables(schema) from error


async def execute_async(operation: Operation[T], tx: Any, schema: str) -> T:
    """Return what an operation returns whose statements are awaited in `tx`.

    Raises:
        ConfigError: `tx` is no asynchronous transaction that can be used here.
        SchemaError: the tables are missing.
    """
    try:
        statement = next(operation)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # of a generator that returns T
    connection = await _async_connection(tx)
    async with psycopg.AsyncCursor(connection) as cursor:
        cursor.row_factory = tuple_row
        while True:
            if statement.has_arrays:
                arrays.register(cursor.adapters)
            if statement.may_be_alone:
                statement.values["is_alone"] = _is_alone(connection)
            try:
                await cursor.execute(sql.load(statement.name, schema), statement.values)
                rows = await cursor.fetchall() if statement.is_read else []
                statement = operation.send(rows)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            except _MISSING as error:
                raise _no_tables(schema) from error


def _is_alone(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the next statement is a transaction by itself, committed at once."""
    pgconn = connection.pgconn
    return (
        connection.autocommit
        and pgconn.transaction_status == TransactionStatus.IDLE
        and pgconn.pipeline_status == PipelineStatus.OFF
    )


def _no_tables(schema: str) -> SchemaError:
    return SchemaError(f"schema {schema!r} has no flows tables; run: flows migrate")


def _cursor(tx: Any) -> Any:
    """Return a cursor of our own, whatever the caller's connection makes of rows."""
    if not isinstance(tx, psycopg.Connection):
        found = _connection_of_sqlalchemy(tx) or _connection_of_django(tx)
        if found is None:
            if isinstance(tx, psycopg.AsyncConnection) or not hasattr(tx, "cursor"):
                raise _refusal(tx)
            return tx.cursor()  # of wf.tx
        tx = _checked(found, psycopg.Connection, tx)
    # Not always its own kind of cursor, which may want other placeholders than ours.
    return psycopg.Cursor(tx)


def _connection_of_sqlalchemy(tx: Any) -> Any:
    """Return the driver's connection of a session or connection, in the transaction of that."""
    sqlalchemy, orm = sys.modules.get("sqlalchemy"), sys.modules.get("sqlalchemy.orm")
    if sqlalchemy is None:
        return None
    if orm is not None and isinstance(tx, (orm.Session, orm.scoped_session)):
        tx = tx.connection()
    if not isinstance(tx, sqlalchemy.Connection):
        return None
    # Its commit() does nothing in the driver unless it knows that something has begun.
    if not tx.in_transaction():
        tx.begin()
    return tx.connection.driver_connection


def _connection_of_django(tx: Any) -> Any:
    """Return the driver's connection of `django.db.connection` or one of `connections`."""
    if "django.db" not in sys.modules or not hasattr(tx, "ensure_connection"):
        return None
    tx.ensure_connection()
    return tx.connection


async def _async_connection(tx: Any) -> psycopg.AsyncConnection[Any]:
    if isinstance(tx, psycopg.AsyncConnection):
        return tx
    found, asyncio = tx, sys.modules.get("sqlalchemy.ext.asyncio")
    if asyncio is not None:
        if isinstance(found, (asyncio.AsyncSession, asyncio.async_scoped_session)):
            found = await found.connection()
        if isinstance(found, asyncio.AsyncConnection):
            if not found.in_transaction():
                await found.begin()
            found = (await found.get_raw_connection()).driver_connection
    return _checked(found, psycopg.AsyncConnection, tx)


def _checked(found: object, wanted: type[C], tx: object) -> C:
    if not isinstance(found, wanted):
        raise _refusal(tx)
    return found


def _refusal(tx: object) -> ConfigError:
    kind = type(tx)
    return ConfigError(
        f"a {kind.__module__}.{kind.__qualname__} is no transaction that can be used here: a Client"
        " takes connections of psycopg 3, and of SQLAlchemy and Django where they use it"
        " (postgresql+psycopg://); an AsyncClient takes asynchronous ones"
    )
