"""Whoever asks for the backlog gets what was found last, and never waits for the database."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows.config import DBConfig
from flows.supervisor import backlog
from flows.supervisor.backlog import Backlog, BacklogWatch
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _EndError(Exception):
    """The test is over."""


class Database:
    """Answers looks, one permit each."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.fails = self.ends = False
        self.asked: list[tuple[str, ...]] = []

    def look(self, _connection: Any, _config: DBConfig, workflows: Sequence[str]) -> Backlog:
        self.asked.append(tuple(workflows))
        self.permits.acquire()
        if self.ends:
            raise _EndError
        if self.fails:
            raise psycopg.OperationalError("gone")
        return Backlog(dict.fromkeys(workflows, 7), {}, {})


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr(backlog, "connect", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(backlog, "look", database.look)
    monkeypatch.setattr(backlog, "_EVERY_S", 3600.0)
    return database


@pytest.fixture
def watch(database: Database) -> Iterator[BacklogWatch]:
    watch = BacklogWatch("", DBConfig(), ["demo"])

    def run() -> None:
        with contextlib.suppress(_EndError):
            watch._run()

    thread = threading.Thread(target=run)
    thread.start()
    yield watch
    database.ends = True
    database.permits.release(100)
    watch.serve(["nothing more"])
    thread.join()


def test_nothing_is_found_before_the_first_answer(database: Database, watch: BacklogWatch) -> None:
    wait_until(lambda: database.asked, what="it looks")
    assert watch.found is None
    database.permits.release()
    found = wait_until(lambda: watch.found, what="it has found something")
    assert found is not None
    assert found.queued == {"demo": 7}


def test_other_workflows_are_looked_at_at_once(database: Database, watch: BacklogWatch) -> None:
    database.permits.release()
    wait_until(lambda: watch.found, what="it has found something")
    watch.serve(["demo"])
    assert not watch._served.is_set()
    watch.serve(["demo", "other"])
    wait_until(lambda: len(database.asked) > 1, what="it looks again")
    assert database.asked == [("demo",), ("demo", "other")]


def test_a_database_that_is_lost_is_asked_again(
    database: Database, watch: BacklogWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_EVERY_S", 0.001)
    database.permits.release()
    wait_until(lambda: watch.found, what="it has found something")
    watch.serve(["demo", "other"])
    database.fails = True
    database.permits.release()
    wait_until(lambda: watch.found is None, what="it has found that nobody answers")
    database.fails = False
    database.permits.release()
    wait_until(lambda: watch.found, what="it has found something again")


def test_what_was_found_is_forgotten_while_nobody_answers(
    database: Database, watch: BacklogWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.permits.release()
    wait_until(lambda: watch.found, what="it has found something")
    watch.serve(["other"])
    wait_until(lambda: len(database.asked) > 1, what="it looks again")
    assert watch.found is not None
    monkeypatch.setattr(backlog, "_PATIENCE_S", 0.0)
    assert watch.found is None
