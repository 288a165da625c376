"""The lease keeper: renews a lone worker's lease and rescues the runs of lost workers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg

from flows import leases
from flows.clock import monotonic, seconds
from flows.database import connect
from flows.errors import DatabaseError
from flows.outages import OutageLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["LeaseKeeper"]


class LeaseKeeper:
    """A thread that does for one worker what the maintenance process does under a supervisor.

    After a reconnect nobody's lease is judged until one lease period has passed: when the
    database was away, everybody's lease looks expired.
    """

    def __init__(
        self,
        dsn: str,
        config: DBConfig,
        logger: logging.Logger,
        notify_channel: str | None,
        identity: Callable[[], leases.WorkerIdentity],
        on_lost: Callable[[], None],
    ) -> None:
        """Prepare a keeper; `start` it.

        Args:
            dsn: the database.
            config: where the tables are.
            logger: for what goes wrong.
            notify_channel: where workers are told of released runs, None for nowhere.
            identity: tells whose lease to renew.
            on_lost: called when the lease was lost; `identity` must tell a new worker afterwards,
                under which nobody claims before it is registered, be it by whoever claims.
        """
        self._dsn = dsn
        self._config = config
        self._logger = logger
        self._outage = OutageLog(logger, "renew the lease")
        self._channel = notify_channel
        self._identity = identity
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._judge_from_s = 0.0
        self._is_registering = False
        self._thread = threading.Thread(target=self._run, name="flows-lease-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._dsn, "flows lease keeper") as connection:
                    self._keep(connection)
            except (psycopg.Error, DatabaseError) as error:
                self._outage.failed(error)
                self._judge_from_s = monotonic() + seconds(leases.LEASE)
                self._stop.wait(1.0)

    def _keep(self, connection: Connection) -> None:
        while not self._stop.is_set():
            if not leases.renew_worker(connection, self._config, self._identity().worker_id):
                # Once for each lease: where registering fails, it is tried again with the same id.
                if not self._is_registering:
                    self._on_lost()
                self._is_registering = True
                leases.register_worker(connection, self._config, self._identity())
            self._is_registering = False
            self._outage.worked()
            if monotonic() >= self._judge_from_s:
                released = leases.rescue_expired(connection, self._config, self._channel)
                if released:
                    self._logger.warning("released %d runs of lost workers", released)
            self._stop.wait(seconds(leases.RENEW_INTERVAL))
