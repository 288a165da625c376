"""How a client hears that runs have ended, on one more connection for all who wait.

What goes wrong here costs time and nothing else: who waits looks as well, now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg

from flows.clock import StopSignal, WakeUp
from flows.database import (
    connect,
    is_pooled,
    listen,
    listening_to,
    parameters,
    take_notifications,
)
from flows.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AsyncEndListener", "EndListener"]

RECONNECT_S = 1.0
APPLICATION = "flows client"


class EndListener:
    """Listens from the first wait on, in a thread of its own.

    Attributes:
        hears: whether it is told of ends. Not through a pooler, and not while the database is away.
    """

    def __init__(self, dsn: str, channel: str | None) -> None:
        """Prepare to listen on a channel, None for none; connects when somebody waits."""
        self._dsn, self._channel = dsn, channel
        self._lock = threading.Lock()
        self._waiting: dict[threading.Event, str] = {}
        self._wake_up: WakeUp | None = None
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self.hears = False

    @contextlib.contextmanager
    def awaiting(self, key: str) -> Iterator[threading.Event]:
        """Yield an event that is set when the run has ended, or may have."""
        ended = StopSignal()
        with self._lock:
            self._waiting[ended] = key
            if self._thread is None and self._channel is not None and not self._is_stopping:
                wake_up = self._wake_up = WakeUp()
                self._thread = threading.Thread(
                    target=self._run, args=(self._channel, wake_up), name="flows-ends", daemon=True
                )
                self._thread.start()
        try:
            yield ended
        finally:
            with self._lock:
                del self._waiting[ended]

    def close(self) -> None:
        """End the thread, and have whoever waits look once more; again does nothing."""
        with self._lock:
            self._is_stopping = True
        if self._thread is not None and self._wake_up is not None:
            self._wake_up.set()
            self._thread.join()
        self._tell(None)

    def _run(self, channel: str, wake_up: WakeUp) -> None:
        try:
            self._listen(channel, wake_up)
        finally:
            wake_up.close()

    def _listen(self, channel: str, wake_up: WakeUp) -> None:
        while not self._is_stopping:
            with (
                contextlib.suppress(psycopg.Error, DatabaseError),
                connect(self._dsn, APPLICATION) as connection,
            ):
                if is_pooled(connection):
                    return
                listen(connection, channel)
                self.hears = True
                self._tell(None)
                while not self._is_stopping:
                    for key, _ in take_notifications(connection):
                        self._tell(key)
                    wake_up.wait(None, connection.fileno())
            self.hears = False
            if not self._is_stopping:
                wake_up.wait(RECONNECT_S)

    def _tell(self, key: str | None) -> None:
        """Wake who waits for a run; None for all."""
        with self._lock:
            for ended, awaited in self._waiting.items():
                if key is None or key == awaited:
                    ended.set()


class AsyncEndListener:
    """What `EndListener` is, for asyncio: a task of the loop in which it is used.

    Attributes:
        hears: whether it is told of ends.
    """

    def __init__(self, dsn: str, channel: str | None) -> None:
        """Prepare to listen on a channel, None for none; connects when somebody waits."""
        self._dsn, self._channel = dsn, channel
        self._waiting: dict[asyncio.Event, str] = {}
        self._task: asyncio.Task[None] | None = None
        self.hears = False

    @contextlib.contextmanager
    def awaiting(self, key: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the run has ended, or may have."""
        ended = asyncio.Event()
        self._waiting[ended] = key
        if self._task is None and self._channel is not None:
            self._task = asyncio.create_task(self._run(self._channel))
        try:
            yield ended
        finally:
            del self._waiting[ended]

    async def close(self) -> None:
        """End the task, and have whoever waits look once more."""
        self._channel = None
        if self._task is not None:
            self._task.cancel()
            # Not by awaiting the task, whose end could not be told from a cancellation of this one.
            await asyncio.wait([self._task])
        self._tell(None)

    async def _run(self, channel: str) -> None:
        connect_async: Any = psycopg.AsyncConnection.connect
        while True:
            with contextlib.suppress(psycopg.Error):
                connection = await connect_async(
                    parameters(self._dsn, APPLICATION), autocommit=True
                )
                async with connection:
                    await connection.execute(listening_to(channel))
                    self.hears = True
                    self._tell(None)
                    async for told in connection.notifies():
                        self._tell(told.payload)
            self.hears = False
            await asyncio.sleep(RECONNECT_S)

    def _tell(self, key: str | None) -> None:
        for ended, awaited in list(self._waiting.items()):
            if key is None or key == awaited:
                ended.set()
