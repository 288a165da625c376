"""A proxy before PostgreSQL that cuts a connection, or keeps an answer back, at a chosen statement.

It knows just enough of the protocol: the name a session gives itself when it starts, and where an
answer ends. It listens on a Unix socket, so that nobody asks for encryption.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Intervention", "Proxy", "connect_raw"]

_PORT = 5432
_CHUNK = 65536
_READY = b"Z\0\0\0\5"


@dataclass(slots=True)
class Intervention:
    """What is done to the next session of a name that sends certain bytes.

    Attributes:
        session: the application name.
        triggers: bytes of statements, sent in this order; what is done is done to the last.
        answer: bytes of the server's answer to that.
        is_sent: whether the server gets the statement; its answer is kept back all the same.
        is_cut: whether the connection is cut, and not left open without an answer.
        done: set when it has happened: the statement is dropped, or the server has answered.
    """

    session: str
    triggers: tuple[bytes, ...]
    answer: bytes
    is_sent: bool
    is_cut: bool
    done: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Wait until it has happened."""
        assert self.done.wait(DEADLINE_S), (
            f"{self.session} has not sent {self.triggers}, or got no answer"
        )


class Proxy:
    """Stands between clients and the server of `dsn`.

    Attributes:
        dsn: where clients connect to.
    """

    def __init__(self, dsn: str) -> None:
        self._server_dsn = dsn
        self._folder = tempfile.mkdtemp(prefix="flows-proxy-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/.s.PGSQL.{_PORT}")
        self._listener.listen()
        self._lock = threading.Lock()
        self._planned: list[Intervention] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.dsn = make_conninfo(dsn, host=self._folder, port=_PORT)
        self._start(self._accept)

    def cut_before(self, session: str, *triggers: bytes) -> Intervention:
        """Cut the connection when the statement comes: the server never sees it."""
        return self._plan(Intervention(session, triggers, b"", is_sent=False, is_cut=True))

    def cut_after(self, session: str, *triggers: bytes, answer: bytes) -> Intervention:
        """Cut the connection when the server has answered: the client never hears it."""
        return self._plan(Intervention(session, triggers, answer, is_sent=True, is_cut=True))

    def keep_answer(self, session: str, *triggers: bytes, answer: bytes) -> Intervention:
        """Let the server answer and the client wait for ever."""
        return self._plan(Intervention(session, triggers, answer, is_sent=True, is_cut=False))

    def take(self, session: str, sent: bytes, seen: dict[int, int]) -> Intervention | None:
        """Return what is planned for a session that has sent this; each plan serves once.

        Args:
            session: its application name.
            sent: what it sends now.
            seen: how many triggers of each plan it has sent before.
        """
        with self._lock:
            for planned in self._planned:
                rest = sent
                while planned.session == session:
                    count = seen.setdefault(id(planned), 0)
                    if count == len(planned.triggers):
                        self._planned.remove(planned)
                        return planned
                    _, found, rest = rest.partition(planned.triggers[count])
                    if not found:
                        break
                    seen[id(planned)] += 1
        return None

    def close(self) -> None:
        """Cut everything and go."""
        with self._lock:
            for each in (self._listener, *self._sockets):
                _cut(each)
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self, planned: Intervention) -> Intervention:
        with self._lock:
            self._planned.append(planned)
        return planned

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = connect_raw(self._server_dsn)
                except OSError:
                    # The server is away.
                    client.close()
                    continue
                with self._lock:
                    self._sockets += [client, server]
                link = _Link(self, client, server)
                self._start(link.carry_questions)
                self._start(link.carry_answers)


def connect_raw(dsn: str) -> socket.socket:
    """Return a socket connected to the server of a DSN, to which nothing is said yet."""
    target = conninfo_to_dict(dsn)
    host, port = str(target.get("host", "localhost")), int(target.get("port") or _PORT)
    if not host.startswith("/"):
        server = socket.create_connection((host, port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as libpq does
        return server
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(Path(host) / f".s.PGSQL.{port}"))
    return server


class _Link:
    """One client's connection, carried by two threads."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._planned: Intervention | None = None

    def carry_questions(self) -> None:
        session = ""
        seen: dict[int, int] = {}
        for chunk in _chunks(self._client):
            if not session:
                session = _application_name(chunk)
            planned = self._proxy.take(session, chunk, seen) if self._planned is None else None
            if planned is not None and not planned.is_sent:
                # The session ends on the server before anybody is told.
                _cut(self._server)
                planned.done.set()
                _cut(self._client)
                return
            self._planned = self._planned or planned
            with contextlib.suppress(OSError):
                self._server.sendall(chunk)
        _cut(self._server)

    def carry_answers(self) -> None:
        kept = b""
        for chunk in _chunks(self._server):
            if self._planned is None:
                with contextlib.suppress(OSError):
                    self._client.sendall(chunk)
                continue
            kept += chunk
            if _is_answered(kept, self._planned.answer):
                if self._planned.is_cut:
                    _cut(self._server)
                self._planned.done.set()
                if self._planned.is_cut:
                    break
        _cut(self._client)


def _chunks(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            yield chunk


def _application_name(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    names = dict(zip(words[::2], words[1::2], strict=False))
    return names.get(b"application_name", b"").decode()


def _is_answered(kept: bytes, answer: bytes) -> bool:
    """Tell whether an answer has come and its ReadyForQuery: every statement before it is over.

    A notification may stand behind that.
    """
    _, found, rest = kept.partition(answer)
    _, is_ready, status = rest.partition(_READY)
    return bool(found) and bool(is_ready) and bool(status)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Shut down first: another thread may be reading from it.
        end.shutdown(socket.SHUT_RDWR)
    end.close()
