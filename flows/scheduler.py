"""The scheduler: fires schedules at their times, from a thread and a connection of its own.

It waits until the next one is due. Who changes a schedule notifies it; since notifications may get
lost, it also looks every so often, and oftener where a pooler passes none on. A supervisor has one
scheduler, and so has a worker alone: which makes it the one to warn of the pooler.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg

from flows.clock import WakeUp, monotonic
from flows.config import SCHEDULE_REFRESH
from flows.database import connect, is_pooled, listen, take_notifications
from flows.errors import DatabaseError
from flows.firing import fire_due, next_due_s
from flows.outages import OutageLog

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from flows.config import DBConfig
    from flows.database import Connection

__all__ = ["Scheduler"]

_RECONNECT_S = (0.1, 5.0)
_LOCKED_S = (0.02, 1.0)
"""How long to wait for a schedule that is due and that somebody else holds, first and longest."""

_UNTOLD_S = 1.0
"""How often to look where a pooler passes no notifications on."""

_DEAF = (
    "the database is reached through a pooler, which passes no notifications on: polling instead;"
    " name it without the pooler as well, by listen_dsn, --listen-dsn or FLOWS_LISTEN_URL"
)
_DOUBTFUL = (
    "the DSN for listening leads through a pooler, too: notifications are heard only if that keeps"
    " sessions (pool_mode = session)"
)


class Scheduler:
    """Fires the schedules of some workflows until it is stopped."""

    def __init__(
        self,
        dsn: str,
        listen_dsn: str | None,
        config: DBConfig,
        logger: logging.Logger,
        notify_channel: str | None,
        poll_s: float,
        workflow_names: Sequence[str],
    ) -> None:
        """Prepare a scheduler; `start` it.

        Args:
            dsn: the database.
            listen_dsn: the same one past a pooler, None where there is none.
            config: where the tables are.
            logger: for schedules that cannot be fired, and for what goes wrong.
            notify_channel: where it hears of changes and tells workers, None for nowhere.
            poll_s: how often to look without being told.
            workflow_names: schedules of other workflows are left alone.
        """
        self._dsn = listen_dsn or dsn
        self._is_told = listen_dsn is not None
        self._has_warned = False
        self._config = config
        self._logger = logger
        self._outage = OutageLog(logger, "fire schedules")
        self._channel = notify_channel
        self._poll_s = self._longest_s = poll_s
        self._names = tuple(workflow_names)
        self._wake_up = WakeUp()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="flows-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopping = True
        self._wake_up.set()
        if self._thread.is_alive():
            self._thread.join()
        self._wake_up.close()

    def serve(self, workflow_names: Sequence[str]) -> None:
        """From here on, fire the schedules of these workflows; from any thread."""
        self._names = tuple(workflow_names)
        self._wake_up.set()

    def _run(self) -> None:
        delay_s, longest_s = _RECONNECT_S
        while not self._is_stopping:
            try:
                with connect(self._dsn, "flows scheduler") as connection:
                    self._listen(connection)
                    while not self._is_stopping:
                        look_again_s = self._fire(connection)
                        self._outage.worked()
                        self._wait(connection, look_again_s)
                        delay_s, longest_s = _RECONNECT_S
            except (psycopg.Error, DatabaseError) as error:
                self._outage.failed(error)
            except Exception as error:  # noqa: BLE001  told, with its traceback
                # Whatever it was: a thread that has ended fires no schedule, and nobody would know.
                self._outage.failed(error, foreseen=False)
            else:
                return
            self._wake_up.wait(delay_s)
            delay_s = min(longest_s, delay_s * 2)

    def _listen(self, connection: Connection) -> None:
        if self._channel is None:
            return
        pooled = is_pooled(connection)
        if pooled and not self._has_warned:
            self._has_warned = True
            self._logger.warning(_DOUBTFUL if self._is_told else _DEAF)
        if self._is_told or not pooled:
            listen(connection, self._channel)
            self._poll_s = self._longest_s
        else:
            self._poll_s = min(self._longest_s, _UNTOLD_S)

    def _fire(self, connection: Connection) -> float:
        """Fire what is due; return when to look again, on the monotonic clock."""
        locked_s, longest_s = _LOCKED_S
        while not self._is_stopping:
            due_s = next_due_s(connection, self._config, self._names)
            if due_s is None or due_s > 0:
                return monotonic() + min(self._poll_s, due_s or self._poll_s)
            fired = fire_due(connection, self._config, self._names, self._channel)
            for schedule_id, reason in fired.disabled:
                self._logger.error("schedule %s cannot be fired: disabled: %s", schedule_id, reason)
            if not fired.schedules:
                self._wake_up.wait(locked_s)
                locked_s = min(longest_s, locked_s * 2)
        return 0.0

    def _wait(self, connection: Connection, until_s: float) -> None:
        """Wait until a moment, or until a schedule may have changed."""
        while not self._is_stopping:
            # Those that came along with an answer do not make the socket readable again.
            payloads = {payload for payload, _ in take_notifications(connection)}
            if SCHEDULE_REFRESH in payloads:
                return
            left_s = until_s - monotonic()
            if left_s <= 0 or not self._wake_up.wait(left_s, connection.fileno()):
                return
