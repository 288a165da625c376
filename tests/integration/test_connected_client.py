"""A client with connections of its own."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Client, ConnectedClient
from flows.errors import (
    ConfigError,
    DatabaseError,
    RunStateError,
    SchemaError,
    UnknownRunError,
)
from tests.integration.client_app import double, refuse, registry, waiter
from tests.pgbouncer import needs_pgbouncer, pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

MINUTE = timedelta(minutes=1)


@pytest.fixture
def client(runs: Runs) -> Iterator[ConnectedClient]:
    with Client.connect(runs.dsn) as client:
        yield client


def test_a_run_is_begun_waited_for_and_its_output_typed(
    runs: Runs, client: ConnectedClient
) -> None:
    runs.start(registry)
    key = client.begin(double, 21)
    assert client.wait(key, int, timeout=MINUTE) == 42
    assert client.status(key).status == "completed"
    assert client.output(str(key), int) == 42


def test_many_are_begun_at_once(runs: Runs, client: ConnectedClient) -> None:
    keys = client.begin_many(double, range(5))
    runs.execute_due(registry)
    assert [client.wait(key, timeout=MINUTE) for key in keys] == [0, 2, 4, 6, 8]


def test_an_event_wakes_a_run_that_is_waited_for(runs: Runs, client: ConnectedClient) -> None:
    runs.start(registry)
    key = client.begin(waiter)
    runs.wait_for(key, "waiting_event")
    outputs: list[str] = []
    thread = threading.Thread(target=lambda: outputs.append(client.wait(key, str, timeout=MINUTE)))
    thread.start()
    client.publish_event(key, "Name", "Ada")
    thread.join()
    assert outputs == ["Ada"]


def test_waiting_for_a_run_that_fails_or_is_cancelled_says_so(
    runs: Runs, client: ConnectedClient
) -> None:
    failed, cancelled = client.begin(refuse), client.begin(waiter)
    client.cancel(cancelled)
    runs.execute_due(registry)
    with pytest.raises(RunStateError, match=r"failed.*not this one"):
        client.wait(failed, timeout=MINUTE)
    with pytest.raises(RunStateError, match="cancelled"):
        client.wait(cancelled, timeout=MINUTE)


def test_waiting_ends_with_its_time_and_the_run_goes_on(
    runs: Runs, client: ConnectedClient
) -> None:
    key = client.begin(double, 1)
    with pytest.raises(TimeoutError, match=rf"run {key} is queued after 0:00:00.02"):
        client.wait(key, timeout=timedelta(milliseconds=20))
    runs.execute_due(registry)
    assert client.wait(key, timeout=timedelta()) == 2


def test_a_run_that_is_not_there_is_told(client: ConnectedClient) -> None:
    with pytest.raises(UnknownRunError):
        client.wait("double_0:0198c0de-7a11-7f00-8000-000000000000", timeout=MINUTE)


def test_rows_of_ones_own_are_committed_with_a_run_or_not_at_all(
    runs: Runs, client: ConnectedClient
) -> None:
    runs.connection.execute("CREATE TABLE public.orders (run_id uuid)")
    insert = "INSERT INTO public.orders VALUES (%s)"
    with client.transaction() as tx:
        key = client.begin_tx(tx, double, 1)
        tx.execute(insert, (key.run_id,))
    with contextlib.suppress(KeyError), client.transaction() as tx:
        tx.execute(insert, (client.begin_tx(tx, double, 2).run_id,))
        raise KeyError
    assert runs.rows("SELECT run_id FROM public.orders") == [(key.run_id,)]
    assert runs.rows("SELECT run_id FROM flows.runs") == [(key.run_id,)]


def test_a_connection_that_had_a_transaction_commits_what_is_begun_next(runs: Runs) -> None:
    with Client.connect(runs.dsn, pool_size=1) as client:
        with contextlib.suppress(KeyError), client.transaction() as tx:
            client.begin_tx(tx, double, 1)
            raise KeyError
        key = client.begin(double, 2)
        assert runs.rows("SELECT run_id FROM flows.runs") == [(key.run_id,)]
        with client.transaction() as tx:
            client.begin_tx(tx, double, 3)
            assert runs.rows("SELECT count(*) FROM flows.runs") == [(1,)]
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(2,)]


def test_connections_that_the_server_has_ended_are_replaced(
    runs: Runs, client: ConnectedClient
) -> None:
    client.begin(double, 1)
    runs.rows(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name = 'flows client'"
    )
    client.begin(double, 2)
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(2,)]


def test_what_cannot_be_connected_to_is_told(runs: Runs, dsn: str) -> None:
    with pytest.raises(SchemaError, match="flows migrate"):
        Client.connect(dsn)
    with pytest.raises(DatabaseError, match="cannot connect"):
        Client.connect("host=/nowhere")
    with pytest.raises(ConfigError, match="pool_size is at least 1"):
        Client.connect(runs.dsn, pool_size=0)


def test_a_closed_client_is_told(runs: Runs) -> None:
    client = Client.connect(runs.dsn)
    client.close()
    with pytest.raises(DatabaseError, match="the client is closed"):
        client.begin(double, 1)


@needs_pgbouncer
def test_it_works_through_a_pooler_with_a_single_session(runs: Runs) -> None:
    with pgbouncer(runs.dsn, pool_size=1) as pooled, Client.connect(pooled) as client:
        keys = [client.begin(double, number) for number in range(10)]
        runs.execute_due(registry)
        assert [client.wait(key, timeout=MINUTE) for key in keys] == list(range(0, 20, 2))
    with psycopg.connect(runs.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM flows.runs").fetchone() == (10,)
