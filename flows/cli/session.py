"""The connection of a command, whose errors say what to do about them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from flows.cli.output import Refusal
from flows.database import connect, is_lost
from flows.embedded import default_home, open_database
from flows.embedded.database import VARIABLES
from flows.errors import ConfigError, DatabaseError, EmbeddedError, UnknownRunError
from flows.schema import check_version, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.config import DBConfig
    from flows.database import Connection
    from flows.embedded import Database

__all__ = ["Session", "open_session"]

_TOLD = ("host", "hostaddr", "port", "dbname", "user", "service")
"""What errors repeat of a DSN; never all of it, because of its passwords."""


@dataclass(frozen=True, slots=True)
class Session:
    """A command's hold on a database.

    Attributes:
        connection: to the database, in autocommit.
        database: which it is, and who named it.
    """

    connection: Connection
    database: Database

    @property
    def place(self) -> str:
        """Which database it is, in words."""
        return _place(self.database)

    def make_ready(self, config: DBConfig) -> None:
        """Migrate the embedded database, which is ours to migrate; only check any other.

        Raises:
            SchemaError: the tables are missing or of another version.
        """
        if self.database.is_embedded:
            migrate(self.connection, config)
        else:
            check_version(self.connection, config)


@contextlib.contextmanager
def open_session(dsn: str | None, *, may_create: bool = False) -> Iterator[Session]:
    """Connect to the database that is named, or to the embedded one.

    Args:
        dsn: the value of `--dsn`.
        may_create: whether the embedded database may be made where there is none. A command that
            looks for something would make an empty one and find nothing.

    Raises:
        ConfigError: the DSN that is named cannot be read.
        EmbeddedError: the embedded server cannot be started, or there is none.
        DatabaseError: the database cannot be reached, or refused what the command did.
        Refusal: the command asked for a run that is not there.
    """
    is_new = dsn is None and not any(map(os.environ.get, VARIABLES)) and _has_no_embedded()
    if is_new and not may_create:
        raise EmbeddedError(
            f"no database is named, and there is no embedded one in {default_home()}\n"
            "give --dsn, set FLOWS_DATABASE_URL, or go to the folder where it is"
        )
    with open_database(dsn) as database:
        if is_new:
            click.echo(f"flows: created {_place(database)}", err=True)
        try:
            with _connect(database) as connection:
                yield Session(connection, database)
        except psycopg.Error as error:
            raise DatabaseError(_told(error)) from error
        except UnknownRunError as error:
            raise Refusal(f"{error} in {_place(database)}") from error


def _has_no_embedded() -> bool:
    # A link that leads nowhere is not nothing: starting the server tells what has gone.
    return not os.path.lexists(default_home() / "data")


def _place(database: Database) -> str:
    if database.is_embedded:
        return f"the embedded database of {default_home()}"
    return f"the database of {database.source}"


def _connect(database: Database) -> Connection:
    try:
        return connect(database.dsn, "flows command")
    except DatabaseError as error:
        if database.server is not None:
            raise DatabaseError(f"{error}\nsee {database.server.log}") from error
        # The resolver only says that the host has not been found. Not told: what stands there is
        # the beginning of a password that has a slash.
        port = str(conninfo_to_dict(database.dsn).get("port") or "0")
        if not port.replace(",", "0").isdigit():
            remedy = "in a URL a password's / is written as %2F"
            raise ConfigError(f"{database.source}: its port is not a number; {remedy}") from error
        raise DatabaseError(f"{error}\ncheck {database.source}: {_public(database)}") from error


def _public(database: Database) -> str:
    """Return what a DSN says that may be shown."""
    given = conninfo_to_dict(database.dsn)
    told = (f"{name}={given[name]}" for name in _TOLD if given.get(name))
    return " ".join(told) or "it names no host, no user and no database"


def _told(error: psycopg.Error) -> str:
    """Return what the database has refused, and what to do about it where that is known."""
    if is_lost(error):
        return "the connection to the database was lost; what was being done may have been done"
    reason = error.diag.message_primary or str(error).partition("\n")[0]
    if isinstance(error, pg.InsufficientPrivilege):
        return f"{reason}\nconnect as a role that may, or have the owner grant what is missing"
    return f"the database refused: {reason}"
