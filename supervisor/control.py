"""The control socket: where commands reach a running supervisor.

    flows status ──{"do": "status"}──▶ supervisor        one JSON document a line
                 ◀──{"ok": true, …}──

A client sends one request. It is answered when it is done; what happens before comes as
`{"say": …}`. Only the user who runs the supervisor can connect. Nothing is waited for: a client
that sends nonsense, or does not read, is let go, and nobody else notices. Where the system has
no descriptor left for a client, who connects waits until it has.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.supervisor.happenings import Happening
    from flows.supervisor.processes import Processes

__all__ = ["ControlServer", "Reply", "Request", "address_of", "bind", "default_path"]

_MOST_BYTES = 1 << 16
_MOST_CLIENTS = 32
_LONGEST_PATH = 100

_REST_S = 1.0
"""How long not to listen when the system refuses a connection: it stays there to be refused again,
so that who asked at once would do nothing else."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for.

    Attributes:
        do: status, restart, scale, reload, drain, stacks, queues.
        name: of a workflow.
        processes: how many, to scale.
    """

    do: str
    name: str | None = None
    processes: int | None = None


class Reply(Protocol):
    """Where the answer to a request goes, now or later."""

    def say(self, text: str) -> None:
        """Tell something before the answer."""

    def done(self, **answer: Any) -> None:
        """Answer, and end."""

    def refuse(self, reason: str) -> None:
        """Say why not, and end."""


def default_path() -> Path:
    """Return where this process's socket is, if nothing else was said."""
    return Path(".flows") / f"supervisor-{os.getpid()}.sock"


def address_of(path: Path) -> str:
    """Return what to give a socket for a path: from here on, where the whole would be too long."""
    whole = str(path)
    return whole if len(os.fsencode(whole)) <= _LONGEST_PATH else os.path.relpath(whole)


def bind(path: Path) -> socket.socket:
    """Return a socket that listens at a path, for this user alone.

    Raises:
        ConfigError: somebody listens there already, or the path cannot be used.
    """
    address = address_of(path)
    if len(os.fsencode(address)) > _LONGEST_PATH:
        raise ConfigError(f"--control: a socket's path has {_LONGEST_PATH} bytes at most: {path}")
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        # The mode that it is made with: between that and a chmod somebody could connect.
        mask = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(mask)
        listener.listen(_MOST_CLIENTS)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {path}: {error.strerror}") from error
    except ConfigError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the sockets of supervisors that are gone, this one's path among them."""
    for each in {path, *path.parent.glob("supervisor-*.sock")}:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address_of(each))
            except FileNotFoundError:
                continue
            except ConnectionRefusedError:
                each.unlink(missing_ok=True)
                continue
            except OSError:
                # Somebody else's: not ours to judge.
                continue
        if each == path:
            raise ConfigError(f"a supervisor is listening at {path} already")


class ControlServer:
    """Listens, and hands requests on."""

    def __init__(
        self,
        processes: Processes,
        listener: socket.socket,
        path: Path,
        answer: Callable[[Request, Reply], None],
        say: Callable[[str], None],
    ) -> None:
        """Listen.

        Args:
            processes: on whose selector.
            listener: bound already.
            path: where; removed at the end.
            answer: called with each request.
            say: tells of a system that refuses connections.
        """
        self._processes = processes
        self._say = say
        self._is_refused = False
        self._listener = listener
        self._path = path
        self._answer = answer
        self._clients: set[_Client] = set()
        processes.watch(listener, self._accept)

    def close(self) -> None:
        """Let everybody go, and remove the socket."""
        for client in [*self._clients]:
            client.leave()
        self._processes.unwatch(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> list[Happening]:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return []
        except OSError as error:
            self._on_refused(error)
            return []
        self._is_refused = False
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return []
        try:
            client = _Client(self._processes, connection, self._answer, self._clients)
        except OSError as error:
            connection.close()
            self._on_refused(error)
        else:
            self._clients.add(client)
        return []

    def _on_refused(self, error: OSError) -> None:
        """Go on without the connection, and say so once until there is one again."""
        if not self._is_refused:
            self._is_refused = True
            self._say(f"control: cannot take a connection: {error}; trying until it works again")
        self._processes.rest(self._listener, _REST_S)


class _Client:
    """A connection: one request, one reply."""

    def __init__(
        self,
        processes: Processes,
        connection: socket.socket,
        answer: Callable[[Request, Reply], None],
        others: set[_Client],
    ) -> None:
        connection.setblocking(False)
        self._processes = processes
        self._connection = connection
        self._answer = answer
        self._others = others
        self._incoming = b""
        self._outgoing = bytearray()
        self._has_asked = False
        self._is_answered = False
        self._is_gone = False
        processes.watch(connection, self._act)

    def say(self, text: str) -> None:
        """Tell something before the answer."""
        self._send({"say": text})

    def done(self, **answer: Any) -> None:
        """Answer, and end."""
        self._is_answered = True
        self._send({"ok": True, **answer})

    def refuse(self, reason: str) -> None:
        """Say why not, and end."""
        self._is_answered = True
        self._send({"ok": False, "error": reason})

    def leave(self) -> None:
        """Close the connection."""
        if not self._is_gone:
            self._is_gone = True
            self._processes.unwatch(self._connection)
            self._connection.close()
            self._others.discard(self)

    def _act(self) -> list[Happening]:
        self._hear()
        if self._outgoing and not self._is_gone:
            self._flush()
        return []

    def _hear(self) -> None:
        try:
            data = self._connection.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.leave()
            return
        line, newline, _ = (self._incoming + data).partition(b"\n")
        self._incoming = line
        if self._has_asked:
            self._incoming = b""
        elif newline:
            self._has_asked = True
            self._ask(line)
        elif len(line) > _MOST_BYTES:
            self.refuse("the request is too long")

    def _ask(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            self.refuse(f"not a request: {error}")
        else:
            self._answer(request, self)

    def _send(self, document: dict[str, Any]) -> None:
        if not self._is_gone:
            self._outgoing += msgspec.json.encode(document) + b"\n"
            self._flush()

    def _flush(self) -> None:
        """Send what the client takes; the rest goes out when it has read some of it."""
        try:
            while self._outgoing:
                del self._outgoing[: self._connection.send(self._outgoing)]
        except BlockingIOError:
            self._processes.rewatch(self._connection, writing=True)
        except OSError:
            self.leave()
        else:
            if self._is_answered:
                self.leave()
            else:
                self._processes.rewatch(self._connection, writing=False)
