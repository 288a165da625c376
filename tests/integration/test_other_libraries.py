"""Transactions of SQLAlchemy and Django: runs begin with the caller's rows or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import django
import psycopg
import pytest
import sqlalchemy as sa
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from flows import AsyncClient, Client, RunKey
from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.running import Runs

client = Client()
INSERT = "INSERT INTO public.orders VALUES (1)"


@pytest.fixture(autouse=True)
def orders(runs: Runs) -> None:
    runs.connection.execute("CREATE TABLE public.orders (id int)")


@pytest.fixture
def engine(runs: Runs) -> Iterator[sa.Engine]:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(runs.dsn))
    yield engine
    engine.dispose()


def counts(runs: Runs) -> tuple[int, int]:
    """Return how many runs and orders are there for others."""
    [found] = runs.rows(
        "SELECT (SELECT count(*) FROM flows.runs), (SELECT count(*) FROM public.orders)"
    )
    return found[0], found[1]


def test_a_session_of_sqlalchemy_commits_the_run_with_its_rows(
    runs: Runs, engine: sa.Engine
) -> None:
    with orm.Session(engine) as session:
        key = client.begin_tx(session, "ship", "a lamp")
        session.execute(sa.text(INSERT))
        assert client.get_run_status_tx(session, key).status == "queued"
        assert counts(runs) == (0, 0)
        session.commit()
        assert counts(runs) == (1, 1)
        client.cancel_run_tx(session, key)
        session.rollback()
    assert runs.status(key).status == "queued"


def test_a_scoped_session_and_a_block_that_begins_work_too(runs: Runs, engine: sa.Engine) -> None:
    session = orm.scoped_session(orm.sessionmaker(engine))
    with session.begin():
        client.begin_tx(session, "ship", "a lamp")
    session.remove()
    with engine.begin() as connection:
        client.begin_many_tx(connection, "ship", ["a lamp", "a chair"])
    assert counts(runs) == (3, 0)


def test_a_connection_of_sqlalchemy_that_has_done_nothing_yet_commits_the_run(
    runs: Runs, engine: sa.Engine
) -> None:
    with engine.connect() as connection:
        client.begin_tx(connection, "ship", "a lamp")
        connection.commit()
        client.begin_tx(connection, "ship", "a chair")
        connection.rollback()
    assert counts(runs) == (1, 0)


def test_a_savepoint_of_sqlalchemy_takes_the_run_back(runs: Runs, engine: sa.Engine) -> None:
    with orm.Session(engine) as session, session.begin():
        client.begin_tx(session, "ship", "a lamp")
        with contextlib.suppress(KeyError), session.begin_nested():
            client.begin_tx(session, "ship", "a chair")
            raise KeyError
    assert counts(runs) == (1, 0)


def test_asynchronous_sessions_and_connections_of_sqlalchemy(runs: Runs) -> None:
    begun = AsyncClient()

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(runs.dsn)

    async def main() -> None:
        engine = create_async_engine("postgresql+psycopg_async://", async_creator=connect)
        async with AsyncSession(engine) as session:
            key = await begun.begin_tx(session, "ship", "a lamp")
            await session.execute(sa.text(INSERT))
            assert (await begun.get_run_status_tx(session, key)).status == "queued"
            assert counts(runs) == (0, 0)
            await session.commit()
            await begun.cancel_run_tx(session, key)
            await session.rollback()
        async with engine.connect() as connection:
            await begun.begin_tx(connection, "ship", "a chair")
            await connection.commit()
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        async with scoped() as session:
            await begun.begin_tx(scoped, "ship", "a table")
            await session.commit()
        await scoped.remove()
        with pytest.raises(ConfigError, match="AsyncSession is no transaction"):
            client.begin_tx(AsyncSession(engine), "ship", "nothing")
        await engine.dispose()

    asyncio.run(main())
    assert counts(runs) == (3, 1)


def test_other_drivers_are_refused_before_anything_is_done(runs: Runs, engine: sa.Engine) -> None:
    other = sa.create_engine("sqlite://")
    with orm.Session(other) as session, pytest.raises(ConfigError, match=r"postgresql\+psycopg"):
        client.begin_tx(session, "ship", "nothing")
    with orm.Session(engine) as session, pytest.raises(ConfigError, match="no transaction"):
        asyncio.run(AsyncClient().begin_tx(session, "ship", "nothing"))
    with pytest.raises(ConfigError, match=r"builtins\.str is no transaction"):
        client.begin_tx("postgresql://", "ship", "nothing")  # type: ignore[call-overload]
    other.dispose()
    assert counts(runs) == (0, 0)


@pytest.fixture
def connection(runs: Runs) -> Iterator[Any]:
    """`django.db.connection`, of an application that uses the database of the test."""
    given = conninfo_to_dict(runs.dsn)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given.get("user"),
        "PASSWORD": given.get("password"),
        "HOST": given.get("host"),
        "PORT": given.get("port"),
    }
    if not settings.configured:
        settings.configure(DATABASES={"default": database})
        django.setup()
    from django.db import connection  # noqa: PLC0415  which reads the settings

    connection.close()
    connection.settings_dict.update(database)
    yield connection
    connection.close()


def test_a_connection_of_django_commits_the_run_with_its_rows(runs: Runs, connection: Any) -> None:
    from django.db import transaction  # noqa: PLC0415

    def place(finish: Callable[[], None]) -> RunKey:
        with transaction.atomic():
            key = client.begin_tx(connection, "ship", "a lamp")
            with connection.cursor() as cursor:
                cursor.execute(INSERT)
            assert client.get_run_status_tx(connection, key).status == "queued"
            finish()
        return key

    def fail() -> None:
        assert counts(runs) == (0, 0)
        raise KeyError

    with pytest.raises(KeyError):
        place(fail)
    assert counts(runs) == (0, 0)
    key = place(lambda: None)
    assert counts(runs) == (1, 1)
    # Without atomic() each call is committed.
    client.cancel_run_tx(connection, key)
    assert runs.status(key).status == "cancelled"
