"""The client for asyncio: the same operations, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import AsyncClient, AsyncConnectedClient, every
from flows.errors import (
    ConfigError,
    DatabaseError,
    RunStateError,
    SchemaError,
    UnknownRunError,
    UnknownScheduleError,
)
from tests.citus import not_on_citus
from tests.integration.client_app import double, registry
from tests.pgbouncer import needs_pgbouncer, pgbouncer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.running import Runs

MINUTE = timedelta(minutes=1)
UNKNOWN = "double_0:0198c0de-7a11-7f00-8000-000000000000"


def with_client(
    runs: Runs, use: Callable[[AsyncConnectedClient], Awaitable[None]], *, pool_size: int = 4
) -> None:
    """Use a client with connections of its own in an event loop."""

    async def main() -> None:
        async with AsyncClient.connect(runs.dsn, pool_size=pool_size) as client:
            await use(client)

    asyncio.run(main())


def with_tx(
    runs: Runs, use: Callable[[AsyncClient, psycopg.AsyncConnection[Any]], Awaitable[None]]
) -> None:
    """Use a client in a transaction of the caller's, committed at the end."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(runs.dsn) as tx:
            await use(AsyncClient(), tx)

    asyncio.run(main())


def test_a_run_is_begun_waited_for_and_its_output_typed(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        key = await client.begin(double, 21)
        assert await client.wait(key, int, timeout=MINUTE) == 42
        assert (await client.status(key)).status == "completed"
        assert await client.output(str(key), int) == 42

    runs.start(registry)
    with_client(runs, use)


def test_tasks_share_a_client(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        async def one(number: int) -> int:
            key = await client.begin(double, number)
            return await client.wait(key, int, timeout=MINUTE)

        # More tasks than connections.
        assert await asyncio.gather(*map(one, range(20))) == list(range(0, 40, 2))

    runs.start(registry)
    with_client(runs, use)


def test_what_is_waited_for_is_woken_failed_or_cancelled(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        key, failed, cancelled = [
            await client.begin(workflow) for workflow in ("waiter", "refuse", "waiter")
        ]
        await client.publish_event(key, "Name", "Ada")
        await client.cancel(cancelled)
        assert await client.wait(key, str, timeout=MINUTE) == "Ada"
        with pytest.raises(RunStateError, match=r"failed.*not this one"):
            await client.wait(failed, timeout=MINUTE)
        with pytest.raises(RunStateError, match="cancelled"):
            await client.wait(cancelled, timeout=MINUTE)

    runs.start(registry)
    with_client(runs, use)


def test_a_task_that_waits_can_be_cancelled_and_the_run_goes_on(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        key = await client.begin(double, 1)
        task = asyncio.create_task(client.wait(key))
        with pytest.raises(TimeoutError, match=f"run {key} is queued after 0:00:00.02"):
            await client.wait(key, timeout=timedelta(milliseconds=20))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.status(key)).status == "queued"

    with_client(runs, use)
    assert runs.execute_due(registry) == 1


def test_rows_are_committed_with_a_run_or_not_at_all(runs: Runs) -> None:
    runs.connection.execute("CREATE TABLE public.orders (run_id uuid)")
    insert = "INSERT INTO public.orders VALUES (%s)"

    async def use(client: AsyncConnectedClient) -> None:
        async with client.transaction() as tx:
            await tx.execute(insert, ((await client.begin_tx(tx, double, 1)).run_id,))
        with contextlib.suppress(KeyError):
            async with client.transaction() as tx:
                await tx.execute(insert, ((await client.begin_tx(tx, double, 2)).run_id,))
                raise KeyError

    with_client(runs, use)
    assert runs.rows("SELECT count(*) FROM public.orders") == [(1,)]
    assert runs.rows("SELECT run_id FROM flows.runs") == runs.rows("SELECT * FROM public.orders")


def test_a_connection_that_had_a_transaction_commits_what_is_begun_next(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        with contextlib.suppress(KeyError):
            async with client.transaction() as tx:
                await client.begin_tx(tx, double, 1)
                raise KeyError
        key = await client.begin(double, 2)
        assert runs.rows("SELECT run_id FROM flows.runs") == [(key.run_id,)]
        async with client.transaction() as tx:
            await client.begin_tx(tx, double, 3)
            assert runs.rows("SELECT count(*) FROM flows.runs") == [(1,)]

    with_client(runs, use, pool_size=1)
    assert runs.rows("SELECT count(*) FROM flows.runs") == [(2,)]


async def use_every_method(client: AsyncClient, tx: psycopg.AsyncConnection[Any]) -> None:
    """Call every method on a connection, and check what it says."""
    key = await client.begin_tx(tx, double, 1)
    _, other = await client.begin_many_tx(tx, "double", [2, 3], tags=["all"])
    await client.publish_event_tx(tx, key, "Number", {"n": 1})
    assert (await client.get_run_status_tx(tx, key)).status == "queued"
    await client.cancel_run_tx(tx, other)
    assert (await client.get_run_status_tx(tx, other)).status == "cancelled"
    with pytest.raises(RunStateError):
        await client.get_run_output_tx(tx, key)
    with pytest.raises(RunStateError):
        await client.cancel_run_tx(tx, other)
    for call in (client.get_run_status_tx, client.get_run_output_tx, client.cancel_run_tx):
        with pytest.raises(UnknownRunError):
            await call(tx, UNKNOWN)
    with pytest.raises(UnknownRunError):
        await client.publish_event_tx(tx, UNKNOWN, "Number", 1)
    first = await client.schedule_tx(tx, double, 1, "often", every(MINUTE), run_now=True)
    assert first is not None
    await client.pause_schedule_tx(tx, "often")
    await client.resume_schedule_tx(tx, "often")
    await client.delete_schedule_tx(tx, "often")
    with pytest.raises(UnknownScheduleError):
        await client.delete_schedule_tx(tx, "often")


def count(runs: Runs) -> int:
    [(number,)] = runs.rows("SELECT count(*) FROM flows.runs")
    return int(number)


def test_every_method_works_in_the_callers_transaction_and_commits_nothing(runs: Runs) -> None:
    async def use(client: AsyncClient, tx: psycopg.AsyncConnection[Any]) -> None:
        await use_every_method(client, tx)
        assert count(runs) == 0

    with_tx(runs, use)
    assert count(runs) == 4


@pytest.mark.parametrize(
    "encoding",
    [pytest.param("LATIN1", marks=not_on_citus("nodes take text for UTF-8")), "UTF8"],
)
def test_every_method_works_whatever_the_callers_connection_is_like(
    runs: Runs, encoding: str
) -> None:
    async def use(client: AsyncClient, tx: psycopg.AsyncConnection[Any]) -> None:
        await tx.set_autocommit(True)
        await tx.execute(f"SET client_encoding TO {encoding}")
        tx.row_factory = psycopg.rows.dict_row
        async with tx.pipeline():
            await use_every_method(client, tx)
        keys = await client.begin_many_tx(tx, "text", ["é"])
        query = "SELECT input_json FROM flows.runs WHERE run_id = %s"
        assert runs.rows(query, keys[0].run_id) == [("é",)]

    with_tx(runs, use)


def test_what_cannot_be_used_is_told(runs: Runs, dsn: str) -> None:
    async def refuse_all() -> None:
        with pytest.raises(SchemaError, match="flows migrate"):
            await AsyncClient.connect(dsn).open()
        with pytest.raises(DatabaseError, match="cannot connect"):
            await AsyncClient.connect("host=/nowhere").open()
        client = AsyncClient.connect(runs.dsn)
        with pytest.raises(DatabaseError, match="not open"):
            await client.begin(double, 1)
        async with client:
            pass
        with pytest.raises(DatabaseError, match="closed"):
            await client.begin(double, 1)
        with psycopg.connect(runs.dsn) as tx, pytest.raises(ConfigError, match=r"no transaction"):
            await AsyncClient().begin_tx(tx, double, 1)
        with pytest.raises(ConfigError, match="a run starts after a delay or at an instant"):
            await AsyncClient().begin_tx(None, double, 1, delay=MINUTE, start_at=1)  # type: ignore[call-overload]

    asyncio.run(refuse_all())
    with pytest.raises(ConfigError, match="pool_size is at least 1"):
        AsyncClient.connect(runs.dsn, pool_size=0)
    with pytest.raises(ConfigError, match="cannot be read"):
        AsyncClient.connect("postgres:/:")


def test_connections_that_the_server_has_ended_are_replaced(runs: Runs) -> None:
    async def use(client: AsyncConnectedClient) -> None:
        await client.begin(double, 1)
        runs.rows(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE application_name = 'flows client'"
        )
        await client.begin(double, 2)

    with_client(runs, use)
    assert count(runs) == 2


@needs_pgbouncer
def test_it_works_through_a_pooler_with_a_single_session(runs: Runs) -> None:
    async def main(pooled: str) -> None:
        async with AsyncClient.connect(pooled) as client:
            await asyncio.gather(*(client.begin(double, number) for number in range(10)))

    with pgbouncer(runs.dsn, pool_size=1) as pooled:
        asyncio.run(main(pooled))
    assert count(runs) == 10
