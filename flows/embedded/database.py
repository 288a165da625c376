"""Which database to use: the one that is named, or the embedded one of the project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flows.database import check_dsn
from flows.embedded.server import Server, start
from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLES", "Database", "default_home", "open_database"]

VARIABLES = ("FLOWS_DATABASE_URL", "DATABASE_URL")
"""Where a database is named, best first; an empty one counts as not set."""

LISTEN_VARIABLE = "FLOWS_LISTEN_URL"
"""Where the same database is named past a pooler."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database to use.

    Attributes:
        dsn: how to connect.
        source: who named it: `--dsn`, a variable of the environment, or `embedded`.
        server: this process's hold on the embedded server, None for any other database.
        listen_dsn: the same database past a pooler, None where none was named.
    """

    dsn: str
    source: str
    server: Server | None = None
    listen_dsn: str | None = None

    @property
    def is_embedded(self) -> bool:
        """Tell whether it is the embedded server's."""
        return self.server is not None

    def close(self) -> None:
        """End this process's hold on an embedded server. Idempotent."""
        if self.server is not None:
            self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def default_home() -> Path:
    """Return the folder of the project's cluster: `.flows/pg` in the present folder."""
    return Path.cwd() / ".flows" / "pg"


def open_database(
    explicit: str | None = None,
    home: Path | None = None,
    environment: Mapping[str, str] | None = None,
    listen: str | None = None,
) -> Database:
    """Return the database to use, and start the embedded server if it is that.

    In this order: `explicit`, `FLOWS_DATABASE_URL`, `DATABASE_URL`, the embedded server of `home`.
    Opens no connection and leaves no thread behind.

    Args:
        explicit: the value of `--dsn`.
        home: the folder of the embedded cluster, `default_home()` if not given.
        environment: instead of `os.environ`.
        listen: the value of `--listen-dsn`; `FLOWS_LISTEN_URL` by default.

    Raises:
        ConfigError: a DSN that is named cannot be read, or `listen` stands alone.
        EmbeddedError: the embedded server cannot be started.
    """
    environment = os.environ if environment is None else environment
    dsn, source = _find(explicit, environment)
    if dsn is not None:
        beside = _find_listen(listen, environment)
        return Database(_checked(dsn, source), source, listen_dsn=beside)
    if listen is not None:
        raise ConfigError("--listen-dsn needs --dsn beside it: the embedded database has no pooler")
    server = start(default_home() if home is None else home)
    return Database(server.dsn, "embedded", server)


def _find(explicit: str | None, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the DSN that is named, and who names it."""
    if explicit is not None:
        return explicit, "--dsn"
    for variable in VARIABLES:
        if environment.get(variable):
            return environment[variable], variable
    return None, "embedded"


def _find_listen(explicit: str | None, environment: Mapping[str, str]) -> str | None:
    if explicit is not None:
        return _checked(explicit, "--listen-dsn")
    given = environment.get(LISTEN_VARIABLE)
    return _checked(given, LISTEN_VARIABLE) if given else None


def _checked(dsn: str, source: str) -> str:
    if not dsn.strip():
        without = "do without" if "listen" in source else "use the embedded database"
        raise ConfigError(f"{source} is empty; leave it out to {without}")
    try:
        return check_dsn(dsn)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
