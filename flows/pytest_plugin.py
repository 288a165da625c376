"""The pytest plugin: the fixture `flows_dsn`. What it needs is imported when it is asked for."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["flows_dsn", "pytest_addoption"]

VARIABLE = "FLOWS_TEST_DSN"
OPTION = "flows_test_dsn"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for a server of the user's own."""
    parser.addini(
        OPTION,
        f"a PostgreSQL server for the databases of flows_dsn; {VARIABLE} comes first,"
        " and without both one is started",
        default="",
    )


@pytest.fixture(scope="session")
def _flows_template(pytestconfig: pytest.Config) -> Iterator[tuple[str, str]]:
    """The DSN of the server of this session, and that of a database to be copied."""
    from flows.testing import new_database, throwaway_server  # noqa: PLC0415  heavy

    given = os.environ.get(VARIABLE) or pytestconfig.getini(OPTION)
    with contextlib.ExitStack() as opened:
        with _explained(given):
            server = given or opened.enter_context(throwaway_server())
            template = opened.enter_context(new_database(server))
        yield server, template


@pytest.fixture
def flows_dsn(_flows_template: tuple[str, str]) -> Iterator[str]:
    """The DSN of a Postgres database of the test's own, with the tables of flows in it."""
    from flows.testing import new_database  # noqa: PLC0415  heavy

    server, template = _flows_template
    with new_database(server, template) as dsn:
        yield dsn


@contextlib.contextmanager
def _explained(given: str) -> Iterator[None]:
    """Turn what is wrong with the server into a message without a traceback."""
    from psycopg import Error  # noqa: PLC0415

    from flows.errors import FlowsError  # noqa: PLC0415

    try:
        yield
    except (Error, FlowsError) as error:
        where = f"the server named by {VARIABLE} or {OPTION}" if given else "a server of its own"
        pytest.fail(
            f"flows_dsn cannot use {where}: {error}\nA server for tests is named by {VARIABLE} in"
            f" the environment, or by the option {OPTION} of pytest.",
            pytrace=False,
        )
