"""The proxy knows when the server has answered."""

from __future__ import annotations

import socket

from tests.crash.proxy import Proxy
from tests.waiting import DEADLINE_S

ANSWER = b"C\0\0\0\x0dSELECT 1\0"
READY = b"Z\0\0\0\5I"
NOTIFICATION = b"A\0\0\0\x0c\0\0\0\1go\0\0"
STARTUP = b"\0\0\0\x20\0\3\0\0application_name\0one\0\0"


def test_a_notification_behind_an_answer_does_not_hide_its_end() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host, port = listener.getsockname()
        with Proxy(f"host={host} port={port}") as proxy:
            planned = proxy.cut_after("one", b"E", answer=b"C\0\0\0")
            folder = dict(part.split("=") for part in proxy.dsn.split())["host"]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{folder}/.s.PGSQL.5432")
                server, _ = listener.accept()
                with server:
                    client.sendall(STARTUP)
                    server.recv(100)
                    client.sendall(b"E")
                    server.recv(100)
                    server.sendall(ANSWER + READY + NOTIFICATION)
                    planned.wait()
                    client.settimeout(DEADLINE_S)
                    assert client.recv(100) == b""
