"""Who waits for a run is told of its end: here nobody looks by themselves."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import AsyncClient, Client, Context, Registry, writes
from flows.errors import DatabaseError, RunStateError
from tests.citus import not_on_citus
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows import ConnectedClient, RunKey
    from tests.running import RunningWorker, Runs

registry = Registry()


@registry.workflow("waiter")
def waiter(wf: Context, number: int) -> str:
    name = wf.wait_for_event("name/v1", "Name", str)
    if number == 1:
        raise ValueError(name)
    if number == 2:
        wf.tx.execute("SELECT 1")
    return name


@pytest.fixture(autouse=True)
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.client.POLL_S", (3600.0, 3600.0))
    monkeypatch.setattr("flows.client.TOLD_POLL_S", 3600.0)


def is_asked(running: RunningWorker, key: RunKey) -> Callable[[], bool]:
    services: Any = running.worker._services
    return lambda: str(key) in services.engine.awaited._keys


def waiting(client: ConnectedClient, key: RunKey) -> tuple[threading.Thread, list[Any]]:
    """Wait for a run in a thread; what comes of it is in the list."""
    answers: list[Any] = []

    def wait() -> None:
        try:
            answers.append(client.wait(str(key), str))
        except RunStateError as error:
            answers.append(error.status)
        except DatabaseError:
            answers.append("closed")

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, answers


@pytest.mark.parametrize(("number", "answer"), [(0, "Ada"), (1, "failed"), (2, "Ada")])
def test_the_end_of_a_run_is_told_to_who_waits(runs: Runs, number: int, answer: str) -> None:
    running = runs.start(registry)
    key = runs.begin(waiter, number)
    runs.wait_for(key, "waiting_event")
    with Client.connect(runs.dsn) as client:
        first, answers = waiting(client, key)
        second, others = waiting(client, key)
        wait_until(is_asked(running, key), what="the worker has heard of it")
        wait_until(lambda: client._ends.hears, what="the client listens")
        wait_until(lambda: len(client._ends._waiting) == 2, what="both wait")
        runs.publish(key, "Name", "Ada")
        first.join(DEADLINE_S)
        second.join(DEADLINE_S)
        assert answers == others == [answer]


def test_an_end_is_told_that_took_a_second_try_to_commit(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = runs.start(registry)
    key = runs.begin(waiter, 0)
    runs.wait_for(key, "waiting_event")
    commit = writes.commit
    refused: list[int] = []

    def refuse_first(connection: Any, schema: str, statements: Any, looks: Any) -> Any:
        if not refused:
            refused.append(1)
            all_of_them = list(statements)
            assert all_of_them[-1].query == "notify"
            raise psycopg.errors.LockNotAvailable
        return commit(connection, schema, statements, looks)

    with Client.connect(runs.dsn) as client:
        thread, answers = waiting(client, key)
        wait_until(is_asked(running, key), what="the worker has heard of it")
        wait_until(lambda: client._ends.hears, what="the client listens")
        monkeypatch.setattr(writes, "commit", refuse_first)
        runs.publish(key, "Name", "Ada")
        thread.join(DEADLINE_S)
        assert answers == ["Ada"]
    assert refused
    services: Any = running.worker._services
    assert not services.engine.awaited._keys


def test_a_cancellation_is_told_by_who_cancels(runs: Runs) -> None:
    key = runs.begin(waiter, 0)
    with Client.connect(runs.dsn) as client:
        thread, answers = waiting(client, key)
        wait_until(lambda: client._ends.hears, what="the client listens")
        runs.client.cancel_run_tx(runs.connection, key)
        thread.join(DEADLINE_S)
        assert answers == ["cancelled"]


def test_a_task_is_told_too(runs: Runs) -> None:
    running = runs.start(registry)
    key = runs.begin(waiter, 0)
    runs.wait_for(key, "waiting_event")

    async def wait() -> str:
        async with AsyncClient.connect(runs.dsn) as client:
            task = asyncio.create_task(client.wait(key, str))
            await asyncio.to_thread(wait_until, is_asked(running, key), what="the worker heard")
            await asyncio.to_thread(wait_until, lambda: client._ends.hears, what="it listens")
            await asyncio.to_thread(runs.publish, key, "Name", "Ada")
            return await asyncio.wait_for(task, DEADLINE_S)

    assert asyncio.run(wait()) == "Ada"


@not_on_citus("another session is on another node")
def test_a_listener_that_is_cut_off_listens_again(runs: Runs) -> None:
    running = runs.start(registry)
    key = runs.begin(waiter, 0)
    runs.wait_for(key, "waiting_event")
    listening = "query LIKE 'LISTEN %%ended%%' AND datname = current_database()"
    with Client.connect(runs.dsn) as client:
        thread, answers = waiting(client, key)
        wait_until(lambda: client._ends.hears, what="the client listens")
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listening}"
        assert len(runs.rows(cut)) == 1
        wait_until(lambda: not client._ends.hears, what="the client has lost its connection")
        wait_until(lambda: client._ends.hears, what="the client listens again")
        wait_until(is_asked(running, key), what="the worker has heard of it")
        runs.publish(key, "Name", "Ada")
        thread.join(DEADLINE_S)
        assert answers == ["Ada"]


def test_what_is_no_key_is_not_remembered(runs: Runs) -> None:
    running = runs.start(registry)
    key = runs.begin(waiter, 0)
    runs.wait_for(key, "waiting_event")
    for asked in ("waiter_0:rubbish", "other_0:" + str(key.run_id), "", str(key)):
        values = ("flows_run_wakeup", f"?{asked}")
        runs.connection.execute("SELECT pg_notify(%s, %s)", values)
    wait_until(is_asked(running, key), what="the worker has heard the last")
    services: Any = running.worker._services
    assert list(services.engine.awaited._keys) == [str(key)]


@pytest.mark.parametrize("has_waited", [False, True])
def test_a_client_may_be_closed_twice(runs: Runs, *, has_waited: bool) -> None:
    client = Client.connect(runs.dsn)
    if has_waited:
        with client._ends.awaiting("some key"):
            wait_until(lambda: client._ends.hears, what="the client listens")
    client.close()
    client.close()


def test_a_task_that_closes_a_client_can_be_cancelled(runs: Runs) -> None:
    key = runs.begin(waiter, 0)

    async def cancel() -> None:
        client = AsyncClient.connect(runs.dsn)
        await client.open()
        waits = asyncio.create_task(client.wait(key))
        await asyncio.to_thread(wait_until, lambda: client._ends.hears, what="it listens")
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        closes = asyncio.create_task(client._ends.close())
        await asyncio.sleep(0)
        closes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closes
        await client.close()

    asyncio.run(cancel())


def test_a_client_that_is_closed_lets_nobody_wait(runs: Runs) -> None:
    key = runs.begin(waiter, 0)
    client = Client.connect(runs.dsn)
    failures: list[Exception] = []

    def wait() -> None:
        try:
            client.wait(key)
        except Exception as error:  # noqa: BLE001  asserted below
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: client._ends.hears, what="the client listens")
    client.close()
    thread.join(DEADLINE_S)
    assert [str(error) for error in failures] == ["the client is closed"]
    with psycopg.connect(runs.dsn) as connection:
        assert runs.client.get_run_status_tx(connection, key).status == "queued"
