"""The HTTP server of maintenance: /metrics, /live and /ready.

    /metrics   all numbers, from memory
    /live      200 while the loop of the supervisor runs, whatever the database does
    /ready     200 while every workflow has a process that can claim, and the database answers

It has threads of its own: a look at the backlog or the work of maintenance never holds it up. Like
what it serves, it needs the extra `metrics`.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.metrics import Tally
from flows.supervisor.exposition import Snapshot, render
from flows.supervisor.messages import Measured, Standing

if TYPE_CHECKING:
    import socket

    from flows.supervisor.backlog import BacklogWatch
    from flows.supervisor.measuring import Pulse
    from flows.supervisor.messages import Message

__all__ = ["Answer", "Endpoint"]

_SILENT_S = 30.0
"""A loop that has not run for so long is dead; it runs every few seconds."""

_CLIENT_S = 5.0
"""How long a client may take to say what it wants, and to take the answer."""

_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What is answered: a status of HTTP, the body, and its type."""

    status: int
    body: bytes
    content_type: str = _TEXT


class Endpoint:
    """Knows the numbers, and serves them."""

    def __init__(self, listener: socket.socket, pulse: Pulse, backlog: BacklogWatch) -> None:
        """Prepare to serve.

        Args:
            listener: where.
            pulse: of the supervisor's loop.
            backlog: what waits in the database.
        """
        self._listener = listener
        self._pulse = pulse
        self._backlog = backlog
        self._totals = Tally()
        self._standing = Standing("starting", {})

    def start(self) -> None:
        """Start to serve, and to look at the database."""
        threading.Thread(target=self._serve, name="metrics", daemon=True).start()
        self._backlog.start()

    def hear(self, message: Message) -> None:
        """Take in what the supervisor has said, if it is of its numbers."""
        if isinstance(message, Measured):
            self._totals.add(message.changes)
        elif isinstance(message, Standing):
            self._standing = message
            if message.processes:
                self._backlog.serve(tuple(message.processes))

    def answer(self, path: str, accept: str = "") -> Answer:
        """Answer a request.

        Args:
            path: what is asked for.
            accept: which types whoever asks can read, as HTTP says it.
        """
        match path.partition("?")[0]:
            case "/metrics":
                return self._metrics(accept)
            case "/live":
                return self._live()
            case "/ready":
                return self._ready()
            case _:
                return Answer(404, b"there are /metrics, /live and /ready\n")

    def _metrics(self, accept: str) -> Answer:
        snapshot = Snapshot(self._totals.read(), self._standing, self._backlog.found)
        return Answer(200, *render(snapshot, accept))

    def _live(self) -> Answer:
        silent_s = self._pulse.silent_s
        if silent_s > _SILENT_S:
            text = f"the loop of the supervisor has not run for {silent_s:.0f} s\n"
            return Answer(503, text.encode())
        return Answer(200, b"live\n")

    def _ready(self) -> Answer:
        standing = self._standing
        missing = [
            f"workflow {workflow}: no process can claim"
            for workflow, states in standing.processes.items()
            if not states["ready"]
        ]
        if standing.phase != "running":
            missing.append(f"the supervisor is {standing.phase}")
        if self._backlog.found is None:
            missing.append("the database has not answered")
        if missing:
            return Answer(503, "".join(f"{line}\n" for line in missing).encode())
        return Answer(200, b"ready\n")

    def _serve(self) -> None:
        _Server(self._listener, self).serve_forever()


class _Server(ThreadingHTTPServer):
    """Serves at a socket that listens already; its threads end with the process."""

    def __init__(self, listener: socket.socket, endpoint: Endpoint) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.endpoint = endpoint

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = _CLIENT_S

    def do_GET(self) -> None:
        """Answer a request."""
        assert isinstance(self.server, _Server)
        answer = self.server.endpoint.answer(self.path, self.headers.get("Accept", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as http.server calls it
        """Say nothing: it is asked every few seconds."""
