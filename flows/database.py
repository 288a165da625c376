"""Connections: how they are opened, and which of their errors are nobody's fault."""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg
from psycopg import sql as compose
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flows.errors import ConfigError, DatabaseError
from flows.sql import arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.abc import Buffer

__all__ = [
    "Connection",
    "check_dsn",
    "check_same_database",
    "configure",
    "connect",
    "is_interruption",
    "is_lost",
    "is_pooled",
    "is_silent",
    "is_transient",
    "listen",
    "listening_to",
    "notice_loss",
    "notice_loss_async",
    "parameters",
    "pipeline",
    "take_notifications",
]

Connection = psycopg.Connection[tuple[Any, ...]]

_DEFAULTS = {
    "connect_timeout": "10",
    # A host that vanished without a word is noticed in about half a minute.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}

_NOTICE_LOSS = """
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 10000;
    SELECT set_config(name, '100', false) FROM pg_catalog.pg_settings
    WHERE name = 'client_connection_check_interval' AND version() !~* 'visual c|msvc|mingw'
"""
"""Within the lease of a worker, so that whoever takes its runs over finds none of them locked.

And of a process that was killed while the server works on its statement, within 100 ms: by itself
the server notices when that has ended. Before version 14 and on Windows it cannot look.
"""

_LOST_STATES = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.DatabaseDropped,
    pg.IdleInTransactionSessionTimeout,
)

_ENDING = ("FATAL", "PANIC")
"""Severities with which the server ends a session, whatever the reason."""

_TIMEOUTS = (pg.LockNotAvailable, pg.QueryCanceled)

_PASSING_STATES = (
    *_TIMEOUTS,
    pg.ReadOnlySqlTransaction,  # a standby, until its promotion
    pg.UndefinedTable,  # dropped or being restored: a running worker waits for its tables
    pg.InvalidSchemaName,
)

_CONFLICT_STATES = (pg.SerializationFailure, pg.DeadlockDetected)

_NODE_FAILURES = (
    "could not commit transaction for shard",
    "failure on connection marked as essential",
)
"""How Citus says that a node was lost, under any internal error's SQLSTATE; never translated."""

_SHORTAGE_STATES = (pg.DiskFull,)
"""Of the server as a whole: it would fail every run that comes by while it lasts."""

_OURS = {"client_encoding": "UTF8"}


class _JsonBytesLoader(Loader):
    """Hands out jsonb as its text in bytes: the codec of the payload decodes it, nobody else."""

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def check_dsn(dsn: object) -> str:
    """Return `dsn` if libpq can read it.

    Raises:
        ConfigError: it cannot, or it is no text, as the None of a variable that is not set.
    """
    if not isinstance(dsn, str):
        raise ConfigError(f"a DSN is text, not {dsn!r}")
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message repeats parts of the text, which may hold a password: it is not even told
        # as the cause, which a traceback would show.
        raise ConfigError(
            "the database's DSN cannot be read; expected postgresql://user@host/name"
            " or key=value pairs"
        ) from None
    return dsn


def parameters(dsn: str, application_name: str) -> str:
    """Return a connection string with our defaults for what `dsn` leaves open.

    Text is UTF-8 whatever the environment says, because payloads are.
    """
    given = conninfo_to_dict(check_dsn(dsn))
    settings = {**_DEFAULTS, "application_name": application_name, **given, **_OURS}
    return make_conninfo("", **settings)


def connect(dsn: str, application_name: str = "flows") -> Connection:
    """Open an autocommit connection for the engine's own statements.

    Through a pooler it keeps no state of the session: `is_pooled` tells.

    Raises:
        ConfigError: `dsn` cannot be read.
        DatabaseError: the database cannot be reached, or not be used as it is; the message says
            where and why.
    """
    connection = None
    try:
        connection = psycopg.connect(
            parameters(dsn, application_name), autocommit=True, prepare_threshold=None
        )
        _settle_in(connection)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, psycopg.OperationalError):
            # A pooler takes connections to a database that it cannot reach.
            raise DatabaseError(f"cannot connect to the database: {_reason(error)}") from error
        raise
    configure(connection)
    return connection


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a connection that `connect` has opened goes through a pooler.

    Its statements may then be executed in one session of the server after the other, so nothing
    is prepared, and notifications are not heard.
    """
    return connection.prepare_threshold is None


def is_silent(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether nothing has come on an idle connection, not even its end; asks nobody."""
    readable = select.poll()
    readable.register(connection.fileno(), select.POLLIN)
    return not readable.poll(0)


@contextlib.contextmanager
def pipeline(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Have the statements of a block travel together, where nothing depends on their answers.

    Outside of a transaction each commits alone, or all do: count on neither.

    Through a pooler each travels by itself. psycopg asks for answers by a Flush after the Sync that
    ends a pipeline. Where the Sync has ended the transaction too, PgBouncer takes the Flush for the
    beginning of the next one and keeps a session for it, until this connection is used again.
    """
    if is_pooled(connection):
        yield
        return
    with connection.pipeline():
        yield


def _settle_in(connection: Connection) -> None:
    """Find out about a pooler; without one, make the session ours."""
    row = connection.execute(
        "SELECT pg_backend_pid(), current_setting('default_transaction_isolation')"
    ).fetchone()
    assert row is not None
    pid, isolation = row
    # Where the database defaults to more, statements that touch many runs would conflict.
    is_stricter = isolation not in ("read committed", "read uncommitted")
    if pid != connection.info.backend_pid:
        # A pooler makes up the process id that it tells. What is set in its sessions would be
        # found there by others.
        if is_stricter:
            raise DatabaseError(
                f"transactions of this role and database are {isolation} by default, which cannot"
                " be changed through a pooler; run:"
                " ALTER ROLE … SET default_transaction_isolation = 'read committed'"
            )
        return
    connection.prepare_threshold = 0
    notice_loss(connection)
    if is_stricter:
        connection.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED"
        )


def notice_loss(connection: psycopg.Connection[Any]) -> None:
    """Have the server end this session soon after our host or process is gone, with its locks.

    By itself it waits for two hours, or for the end of the statement that it works on. Not through
    a pooler, whose sessions are not ours.
    """
    connection.execute(_NOTICE_LOSS, prepare=False)  # several statements
    connection.commit()


async def notice_loss_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Do what `notice_loss` does, for a session of asyncio."""
    await connection.execute(_NOTICE_LOSS, prepare=False)
    await connection.commit()


def check_same_database(connection: Connection, listen_dsn: str) -> None:
    """Check that a DSN for listening leads to the database of a connection.

    Raises:
        ConfigError: it leads to another one.
        DatabaseError: it leads nowhere.
    """
    query = "SELECT current_database(), pg_postmaster_start_time()"
    with connect(listen_dsn, "flows listener") as listener:
        there = listener.execute(query).fetchone()
    if connection.execute(query).fetchone() != there:
        raise ConfigError(
            "the DSN for listening leads to another database than the DSN; give the same one,"
            " without the pooler"
        )


def configure(connection: Connection) -> None:
    """Prepare a connection that only the engine uses."""
    arrays.register(connection.adapters)
    connection.adapters.register_loader("jsonb", _JsonBytesLoader)


def listen(connection: Connection, channel: str) -> None:
    """Have the server notify this connection of what is told on a channel."""
    connection.execute(listening_to(channel))


def listening_to(channel: str) -> compose.Composed:
    """Return the statement that has the server notify a session of what is told on a channel."""
    return compose.SQL("LISTEN {}").format(compose.Identifier(channel))


def take_notifications(connection: Connection) -> Iterator[tuple[str, int]]:
    """Yield payload and sender of the notifications that have come.

    Raises:
        psycopg.Error: the connection is gone.
    """
    for notification in connection.notifies(timeout=0):
        yield notification.payload, notification.pid
    # psycopg leaves one in libpq that came right behind an answer, until more comes.
    while (left := connection.pgconn.notifies()) is not None:
        yield left.extra.decode(errors="replace"), left.be_pid


def is_lost(error: BaseException) -> bool:
    """Tell whether the session is gone, so that nothing is known of what it was doing."""
    if isinstance(error, _LOST_STATES):
        return True
    if isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized in _ENDING:
        return True
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    # Without a SQLSTATE the server did not answer; class 08 is "connection exception".
    return error.sqlstate is None or error.sqlstate.startswith("08")


def is_interruption(error: BaseException, *, of_ours: bool = False) -> bool:
    """Tell whether an error says nothing about the work: it may simply be done again.

    Args:
        error: what was raised.
        of_ours: whether by a statement of the engine's, which is short: where a timeout ends it,
            it has waited for somebody else.
    """
    passes = isinstance(error, _CONFLICT_STATES + _SHORTAGE_STATES)
    passes = passes or (of_ours and isinstance(error, _TIMEOUTS))
    return passes or is_lost(error) or _is_lost_node(error) or _is_stale_plan(error)


def _is_lost_node(error: BaseException) -> bool:
    """Tell whether Citus has lost a node, perhaps while that was committing."""
    return isinstance(error, pg.InternalError_) and str(error).startswith(_NODE_FAILURES)


def _is_stale_plan(error: BaseException) -> bool:
    """Tell whether a prepared statement has other columns by now; psycopg prepares it anew."""
    if not isinstance(error, pg.FeatureNotSupported):
        return False
    return error.diag.source_function == "RevalidateCachedQuery"


def is_transient(error: BaseException) -> bool:
    """Tell whether the same statements may succeed later: the database is short of something."""
    if isinstance(error, DatabaseError) or is_interruption(error):
        return True
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith("53") or isinstance(error, _PASSING_STATES)


def _reason(error: psycopg.Error) -> str:
    """Return what libpq says first: where it tried and what was answered, never a password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return reason.removeprefix("connection failed: ").removeprefix("connection is bad: ")
