"""The README's code runs as it stands there."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, RunKey, Worker
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parent.parent / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The README's app.py, importable as such."""
    module = ModuleType("app")
    monkeypatch.setitem(sys.modules, "app", module)
    exec(compile(python_blocks()[0], "app.py", "exec"), module.__dict__)
    return module


@pytest.fixture
def connection(flows_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE films (path text, frames int)")
        yield connection


def test_the_workflow_and_the_client_calls_of_the_readme_run(
    app: ModuleType, connection: psycopg.Connection[Any], flows_dsn: str
) -> None:
    prepare, begin, publish, fetch = re.split(r"\n+(?=with )", python_blocks()[1])
    names: dict[str, Any] = {"dsn": flows_dsn}
    exec(prepare, names)
    exec(begin, names)
    key: RunKey = names["key"]

    def status_is(status: str) -> bool:
        return Client().get_run_status_tx(connection, key).status == status

    worker = Worker(app.registry, flows_dsn)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: status_is("sleeping"), what="the durable sleep")
        # Its time comes early, for the run and for its wait, and somebody says so.
        connection.execute("UPDATE flows.waits SET wake_at = now()")
        connection.execute("UPDATE flows.runs SET next_wake_at = now()")
        connection.execute("NOTIFY flows_run_wakeup, 'encode_0'")
        wait_until(lambda: status_is("waiting_event"), what="the wait for approval")
        exec(publish, names)
        wait_until(lambda: status_is("completed"), what="the end")
    finally:
        worker.stop()
        thread.join(timeout=30)
    exec(fetch, names)
    assert names["output"].approved_by == "Ada"
    assert connection.execute("SELECT * FROM films").fetchall() == [("a.mov", 24)]


def test_the_readme_names_the_command_that_runs_the_tests() -> None:
    line = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest -n 2"
    assert f"\n{line}\n" in README.read_text("utf-8")
