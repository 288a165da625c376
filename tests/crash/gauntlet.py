"""Numbers every point at which a worker can die, and kills it at the one that is chosen.

    worker ──statements──▶ gauntlet ──▶ server        worker ──step boundaries──▶ gauntlet

A point is behind each message that has the server do something, and each boundary of a step. What
comes before the next message is the same point: the server has done the same until then. Once the
point is reached nothing more is passed on, neither way: the server works off what it was sent,
hears that the client is gone, and rolls back what was not committed.

    begun             nothing was sent
    after Execute     done, in a pipeline of which the rest never comes; so nothing is committed
    after Sync        committed where that ends a transaction, and nobody will ever hear
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from psycopg.conninfo import make_conninfo

from flows import clock
from tests.crash.journey import Order, drain
from tests.crash.proxy import connect_raw
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

__all__ = ["Gauntlet", "Passage"]

ROOT = Path(__file__).resolve().parents[2]
_CHUNK = 65536
_LOOK_S = 0.003


class Passage:
    """One worker's way through its points.

    Attributes:
        kill_at: the point where it is killed, from 1; None lets it pass.
        points: what each of the points that it has reached is.
    """

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.points: list[str] = []

    @property
    def is_over(self) -> bool:
        """Whether the point was reached at which it is killed."""
        return self.kill_at is not None and len(self.points) >= self.kill_at

    def reach(self, point: str) -> bool:
        """Count a point, and tell whether this is the end."""
        if not self.is_over:
            self.points.append(point)
        return self.is_over


class _Link:
    """A connection of the worker's, and what it has sent."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.session = ""
        self._buffer = bytearray()
        self._statements: dict[bytes, str] = {}
        self._bound = ""
        self._executed: list[str] = []

    def messages(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        """Take in bytes; return the messages that are complete, each with its kind."""
        self._buffer += chunk
        found: list[tuple[bytes, bytes]] = []
        while True:
            head = 0 if not self.session else 1
            if len(self._buffer) < head + 4:
                return found
            size = head + int.from_bytes(self._buffer[head : head + 4])
            if len(self._buffer) < size:
                return found
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            found.append((message[:head], message))
            if not head:
                self.session = _application_name(message)

    def learn(self, kind: bytes, message: bytes) -> str | None:
        """Note what a message is about; return what it has the server do, None for nothing."""
        match kind:
            case b"P":
                name, text, _ = message[5:].split(b"\0", 2)
                self._statements[name] = _brief(text)
            case b"B":
                _, name, _ = message[5:].split(b"\0", 2)
                self._bound = self._statements[name]
            case b"E":
                self._executed.append(self._bound)
                return f"{self.session}: {self._bound}"
            case b"S" if self._executed:
                executed, self._executed = self._executed, []
                return f"{self.session}: Sync of {' | '.join(executed)}"
            case b"Q":
                return f"{self.session}: {_brief(message[5:-1])}"
        return None

    def hang_up(self) -> None:
        """Tell the server that the client is gone."""
        self.client.close()
        with contextlib.suppress(OSError):
            # It has told us the same.
            self.server.shutdown(socket.SHUT_WR)

    def wait_for_end(self) -> None:
        """Wait until the session has ended, and with it its transaction."""
        self.server.settimeout(DEADLINE_S)
        with contextlib.suppress(ConnectionError):
            while self.server.recv(_CHUNK):
                pass
        self.server.close()


class Gauntlet:
    """Forks workers, and stands between them and the server."""

    def __init__(self, dsn: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="flows-gauntlet-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/.s.PGSQL.5432")
        self._listener.listen()
        self._server_dsn = dsn
        self._dsn = make_conninfo(dsn, host=self._folder, port=5432)
        self._orders, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._marks, marks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with orders, marks:
            fds = (orders.fileno(), marks.fileno())
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.journey", *map(str, fds)],
                cwd=ROOT,
                pass_fds=fds,
            )
        self._orders.settimeout(DEADLINE_S)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._marks, selectors.EVENT_READ, self._mark)
        self._links: list[_Link] = []
        self._passage = Passage(None)

    def send(
        self, workflow: str, worker_id: UUID, is_done: Callable[[], bool], kill_at: int | None
    ) -> Passage:
        """Have a worker forked and let it work; return when it is dead.

        Args:
            workflow: what it runs.
            worker_id: its identity.
            is_done: asked now and then, whether there is nothing left to do for it.
            kill_at: the point where it is killed; without one it lives until all is done.
        """
        return self._watch(Order(self._dsn, workflow, worker_id), is_done, Passage(kill_at))

    def send_past(self, workflow: str, worker_id: UUID, is_done: Callable[[], bool]) -> list[str]:
        """Have a worker forked that goes to the server itself; return the boundaries it reached."""
        order = Order(self._server_dsn, workflow, worker_id)
        return self._watch(order, is_done, Passage(None)).points

    def _watch(self, order: Order, is_done: Callable[[], bool], passage: Passage) -> Passage:
        self._passage = passage
        self._orders.send(msgspec.json.encode(order))
        pid = int(self._orders.recv(64))
        try:
            self._follow(is_done, passage)
        finally:
            os.kill(pid, signal.SIGKILL)
            code = int(self._orders.recv(64))
            self._clear()
        assert code == -signal.SIGKILL, "the worker has ended by itself"
        return passage

    def _follow(self, is_done: Callable[[], bool], passage: Passage) -> None:
        deadline_s = clock.monotonic() + DEADLINE_S
        look_at_s = 0.0
        passage.reach("begun")
        while not passage.is_over:
            self._carry()
            now_s = clock.monotonic()
            assert now_s < deadline_s, f"the worker gets no further than {passage.points[-5:]}"
            if not passage.is_over and now_s >= look_at_s:
                if is_done():
                    return
                look_at_s = now_s + _LOOK_S

    def _carry(self) -> None:
        """Pass on what has come, or nothing more where the end is reached."""
        for key, _ in self._selector.select(_LOOK_S):
            key.data()
            if self._passage.is_over:
                return

    def close(self) -> None:
        """End everything."""
        self._orders.close()
        self._parent.wait(DEADLINE_S)
        self._clear()
        self._selector.close()
        self._marks.close()
        self._listener.close()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clear(self) -> None:
        """Have the server notice that all connections of the dead are gone."""
        self._listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                # One that was on its way.
                self._listener.accept()[0].close()
        self._listener.setblocking(True)
        drain(self._marks)
        links, self._links = self._links, []
        for link in links:
            self._forget(link)
            link.hang_up()
        # One may wait for a lock of another's.
        for link in links:
            link.wait_for_end()

    def _forget(self, link: _Link) -> None:
        for end in (link.client, link.server):
            with contextlib.suppress(KeyError):
                self._selector.unregister(end)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = connect_raw(self._server_dsn)
        link = _Link(client, server)
        self._links.append(link)
        self._selector.register(client, selectors.EVENT_READ, lambda: self._asked(link))
        self._selector.register(server, selectors.EVENT_READ, lambda: self._answered(link))

    def _mark(self) -> None:
        if not self._passage.reach(self._marks.recv(_CHUNK).decode()):
            self._marks.send(b".")

    def _asked(self, link: _Link) -> None:
        chunk = link.client.recv(_CHUNK)
        if not chunk:
            self._selector.unregister(link.client)
            link.server.shutdown(socket.SHUT_WR)
            return
        for kind, message in link.messages(chunk):
            done = link.learn(kind, message)
            link.server.sendall(message)
            if done is not None and self._passage.reach(f"after {done}"):
                return

    def _answered(self, link: _Link) -> None:
        chunk = link.server.recv(_CHUNK)
        if not chunk:
            self._selector.unregister(link.server)
            return
        link.client.sendall(chunk)


def _application_name(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    names = dict(zip(words[::2], words[1::2], strict=False))
    return names.get(b"application_name", b"?").decode()


def _brief(statement: bytes) -> str:
    """Return the beginning of a statement, on one line."""
    return " ".join(statement.rstrip(b"\0").decode().split())[:60]
