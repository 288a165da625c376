"""What a host leaves behind that vanishes without a word: sessions, which the server must end.

That it does is shown by the settings of sessions over TCP; those over a Unix socket have none.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from flows import Client, Context, Registry, embedded
from flows.database import connect
from flows.embedded.account import server_account
from flows.schema import migrate
from tests.embedded_processes import data_of, postgres_by_hand, project, wait_until_stopped
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOW = "SELECT setting FROM pg_settings WHERE name ~ '^tcp_(keepalives|user)_' ORDER BY name"
SOON = [("3",), ("5",), ("2",), ("10000",)]
"""Of keepalives the count, the idle time and the interval in s, then the timeout in ms."""

registry = Registry()


@registry.workflow("look")
def look(wf: Context) -> list[str]:
    return [setting for (setting,) in wf.tx.execute(SHOW).fetchall()]


@pytest.fixture
def tcp_dsn() -> Iterator[str]:
    """The DSN of a server on a port of this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with project() as home:
        with embedded.start(home) as server:
            dsn = server.dsn
        wait_until_stopped(home)
        data = data_of(home)
        with (data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write("host all all 127.0.0.1/32 trust\n")
        with postgres_by_hand(data, server_account(data), port=port):
            yield make_conninfo(dsn, host="127.0.0.1", port=port)


def test_the_server_notices_within_the_lease_that_a_host_has_vanished(tcp_dsn: str) -> None:
    with connect(tcp_dsn) as connection:
        assert connection.execute(SHOW).fetchall() == SOON
        migrate(connection)
    with Client.connect(tcp_dsn) as client, client.transaction() as tx:
        assert tx.execute(SHOW).fetchall() == SOON
    runs = Runs(tcp_dsn)
    try:
        assert runs.output(runs.execute(registry, look)) == [setting for (setting,) in SOON]
    finally:
        runs.close()
