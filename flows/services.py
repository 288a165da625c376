"""What a worker holds open: its lease, its committer and its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import ConnectionPool

from flows import leases, schema
from flows.awaited import Awaited
from flows.client import Client
from flows.committer import Committer
from flows.database import check_same_database, connect, is_pooled, notice_loss, parameters
from flows.engine import Engine
from flows.errors import FlowsError
from flows.failures import first_line
from flows.lease_keeper import LeaseKeeper
from flows.stranded import check_shard_count
from flows.timekeeper import Timekeeper

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from flows.config import DBConfig
    from flows.database import Connection
    from flows.meter import Meter

__all__ = ["Services"]

COMMIT_GRACE_S = 5.0
"""How long a stopping worker tries to commit what its attempts have left behind."""


class Services:
    """The parts of a worker that its attempts share, from `open` to `close`.

    Attributes:
        engine: what attempts are given.
        connection: an autocommit connection for the thread that owns these services.
    """

    def __init__(self, engine: Engine, connection: Connection, keeper: LeaseKeeper | None) -> None:
        self.engine = engine
        self.connection = connection
        self._keeper = keeper

    @classmethod
    def open(
        cls,
        dsn: str,
        listen_dsn: str | None,
        config: DBConfig,
        *,
        identity: Callable[[], leases.WorkerIdentity],
        transactions: int,
        notify_channel: str | None,
        logger: logging.Logger,
        on_queued: Callable[[str], None],
        on_lease_lost: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        timeout_grace_s: float,
        on_stuck: Callable[[str], None],
        meter: Meter | None,
    ) -> Services:
        """Connect, check the tables, register the worker and start its committer.

        Args:
            dsn: the database.
            listen_dsn: the same one past a pooler, None where there is none.
            config: where the tables are.
            identity: tells who this worker is. Its lease is kept here unless it has a supervisor.
            transactions: how many `wf.tx` may be open at once.
            notify_channel: where workers tell each other of due runs, None for nowhere.
            logger: for life-cycle events.
            on_queued: told of a shard that has a run due.
            on_lease_lost: called when the lease was lost; `identity` must then tell a new worker.
            on_failure: told of an error that ended the committer.
            timeout_grace_s: how long user code may take to end once its time is up.
            on_stuck: told of an attempt whose thread was given up.
            meter: counts what the worker does; None where nobody wants to know.

        Raises:
            ConfigError: `listen_dsn` leads elsewhere, or runs are in shards that are not read.
            DatabaseError: the database cannot be reached.
            SchemaError: the tables are missing or of another version.
        """
        connection = connect(dsn, "flows worker")
        try:
            _register(connection, listen_dsn, config, identity())
            awaited = Awaited(notify_channel)
            committer = Committer(
                dsn, config.schema, logger, on_queued, on_failure, notify_channel, meter, awaited
            )
            committer.start()
        except BaseException:
            connection.close()
            raise
        engine = Engine(
            config.schema,
            committer,
            _open_pool(dsn, transactions, prepares=not is_pooled(connection)),
            _client(config, notify_channel),
            logger,
            notify_channel,
            on_queued,
            on_failure,
            Timekeeper(logger),
            timeout_grace_s,
            on_stuck,
            is_pooled(connection),
            meter,
            awaited,
        )
        keeper = None
        if identity().supervisor_id is None:
            keeper = LeaseKeeper(dsn, config, logger, notify_channel, identity, on_lease_lost)
            keeper.start()
        return cls(engine, connection, keeper)

    def close(self, dsn: str, config: DBConfig, identity: leases.WorkerIdentity) -> None:
        """Commit what is left, give up the lease with whatever it still holds, disconnect."""
        engine = self.engine
        engine.timekeeper.stop()
        engine.committer.stop(COMMIT_GRACE_S)
        if self._keeper is not None:
            self._keeper.stop()
        # Not on the connection from the start: it may have been lost long ago without our noticing.
        self.connection.close()
        try:
            with connect(dsn, "flows worker") as connection:
                leases.release_worker(connection, config, identity.worker_id, engine.notify_channel)
        except (psycopg.Error, FlowsError) as error:
            engine.logger.warning(
                "cannot release this worker's runs, the end of its lease will: %s",
                first_line(error),
            )
        finally:
            engine.pool.close(timeout=COMMIT_GRACE_S)


def _register(
    connection: Connection,
    listen_dsn: str | None,
    config: DBConfig,
    identity: leases.WorkerIdentity,
) -> None:
    """Check that the database is the one to work on, and register the worker; commits."""
    if listen_dsn is not None:
        check_same_database(connection, listen_dsn)
    schema.check_version(connection, config)
    if identity.supervisor_id is None:
        check_shard_count(connection, config, identity.workflow_names)
    leases.register_worker(connection, config, identity)


def _client(config: DBConfig, notify_channel: str | None) -> Client:
    return Client(
        db_config=config,
        notify_channel=notify_channel,
        disable_notify=notify_channel is None,
    )


def _open_pool(
    dsn: str, transactions: int, *, prepares: bool
) -> ConnectionPool[psycopg.Connection[Any]]:
    return ConnectionPool(
        parameters(dsn, "flows transaction"),
        # In a pipeline psycopg waits for the answer to a BEGIN of its own. And by default it
        # prepares what is executed often, which a pooler forgets.
        kwargs={"autocommit": True, **({} if prepares else {"prepare_threshold": None})},
        configure=notice_loss if prepares else None,
        min_size=0,
        max_size=transactions,
        max_idle=60.0,
        timeout=30.0,
        num_workers=1,
        open=True,
        name="flows",
    )
