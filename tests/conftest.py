"""Fixtures: databases on one throw-away server per session."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

# With --import-mode=importlib nothing puts the root on sys.path, and test modules import tests.*.
_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from tests import citus  # noqa: E402
from tests.postgres import new_database  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def sigint_that_is_heard() -> None:
    """Have what tests start hear Ctrl-C: in the background of a script a shell has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def store_of_the_session() -> Iterator[None]:
    """Keep embedded servers of root's tests, in folders only root can enter, out of /var/lib."""
    folder = Path(tempfile.mkdtemp(prefix="flows-store-"))
    folder.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWS_PG_STORE", str(folder))
        yield
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """The server of this session: a Citus, `FLOWS_TEST_DSN`, or a throw-away one of our own."""
    from flows.testing import throwaway_server  # noqa: PLC0415  others start without all of it

    given = citus.given_dsn() or os.environ.get("FLOWS_TEST_DSN")
    if given:
        yield given
    else:
        with throwaway_server() as dsn:
            yield dsn


@pytest.fixture(scope="session")
def empty_template(server_dsn: str) -> Iterator[str | None]:
    """The name of a database without tables, for copying, None for the server's own."""
    if citus.given_dsn() is None:
        yield None
    else:
        with new_database(server_dsn) as dsn:
            citus.join_nodes(server_dsn, dsn)
            yield citus.as_template(server_dsn, dsn)


@pytest.fixture(scope="session")
def migrated_template(server_dsn: str, empty_template: str | None) -> Iterator[str]:
    """The name of a database with the tables in place, for copying."""
    from flows.schema import migrate  # noqa: PLC0415  tests without a database need no schema

    with new_database(server_dsn, template=empty_template) as dsn:
        if citus.given_dsn() is None:
            with psycopg.connect(dsn) as connection:
                migrate(connection)
            yield str(conninfo_to_dict(dsn)["dbname"])
        else:
            citus.distribute_tables(dsn)
            yield citus.as_template(server_dsn, dsn)


@pytest.fixture
def dsn(server_dsn: str, empty_template: str | None) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    with new_database(server_dsn, template=empty_template) as dsn:
        yield dsn


@pytest.fixture
def flows_dsn(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """The DSN of a database of the test's own with the tables in place."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def used_home() -> Iterator[Path]:
    """The home of an embedded server that ran before."""
    from flows import embedded  # noqa: PLC0415  most tests have nothing to do with it
    from tests.embedded_processes import project  # noqa: PLC0415

    with project() as home:
        embedded.start(home).close()
        yield home


@pytest.fixture
def home(used_home: Path) -> Iterator[Path]:
    """The home of a server that ran before and is stopped now; shared, a new one costs a second."""
    from flows import embedded  # noqa: PLC0415

    embedded.stop(used_home)
    yield used_home
    embedded.stop(used_home)


@pytest.fixture
def new_home() -> Iterator[Path]:
    """The home of an embedded server that never ran."""
    from tests.embedded_processes import project  # noqa: PLC0415

    with project() as home:
        yield home
