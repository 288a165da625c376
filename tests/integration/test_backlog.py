"""What waits in the database is counted by workflow, and only what is due."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Client, DBConfig, every
from flows.database import connect
from flows.supervisor.backlog import look
from tests.citus import not_on_citus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.database import Connection

TWO_SHARDS = DBConfig(shard_count=2)
NAMES = ("one", "two", "idle")


@pytest.fixture
def connection(flows_dsn: str) -> Iterator[Connection]:
    with connect(flows_dsn) as connection:
        yield connection


def begin(connection: Connection, workflow: str, count: int, delay: timedelta) -> None:
    client = Client(db_config=TWO_SHARDS)
    with connection.transaction():
        client.begin_many_tx(connection, workflow, [None] * count, delay=delay)


def test_runs_that_are_due_are_counted_over_all_shards(connection: Connection) -> None:
    begin(connection, "one", 8, timedelta())
    begin(connection, "one", 5, timedelta(hours=1))
    begin(connection, "two", 3, timedelta())
    connection.execute("UPDATE flows.runs SET created_at = now() - interval '1 minute'")
    begin(connection, "two", 1, timedelta())
    backlog = look(connection, TWO_SHARDS, NAMES)
    assert backlog.queued == {"one": 8, "two": 4, "idle": 0}
    assert 60 <= backlog.oldest_s["one"] < 3600
    assert 60 <= backlog.oldest_s["two"] < 3600
    assert backlog.oldest_s["idle"] == 0


def test_what_is_being_executed_or_has_ended_does_not_wait(connection: Connection) -> None:
    begin(connection, "one", 4, timedelta())
    connection.execute("UPDATE flows.runs SET status = 'running'")
    begin(connection, "two", 2, timedelta())
    connection.execute("UPDATE flows.runs SET status = 'completed' WHERE workflow_name = 'two'")
    assert look(connection, TWO_SHARDS, NAMES).queued == {"one": 0, "two": 0, "idle": 0}


def test_no_more_than_the_most_are_counted_of_a_shard(connection: Connection) -> None:
    begin(connection, "one", 20, timedelta())
    backlog = look(connection, DBConfig(), ["one"], most_runs=3)
    assert backlog.queued == {"one": 3}
    backlog = look(connection, TWO_SHARDS, ["one"], most_runs=3)
    assert backlog.queued == {"one": 6}


def test_schedules_are_late_ten_seconds_after_their_time(connection: Connection) -> None:
    client = Client()
    for number, late_s in enumerate((-60, 8, 12, 60)):
        with connection.transaction():
            client.schedule_tx(connection, "one", None, f"s{number}", every(timedelta(hours=1)))
        connection.execute(
            "UPDATE flows.schedules SET next_run_at = now() - %s * interval '1 second'"
            " WHERE schedule_id = %s",
            (late_s, f"s{number}"),
        )
    assert look(connection, DBConfig(), NAMES).late == {"one": 2, "two": 0, "idle": 0}
    connection.execute("UPDATE flows.schedules SET enabled = false WHERE schedule_id = 's3'")
    assert look(connection, DBConfig(), NAMES).late["one"] == 1


@not_on_citus("a lock of the whole table is taken on another session there")
def test_a_look_ends_when_the_database_does_not_answer_it(
    connection: Connection, flows_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.supervisor.backlog._BOUND", b"SET LOCAL statement_timeout = 20")
    with psycopg.connect(flows_dsn) as locked:
        locked.execute("LOCK TABLE flows.runs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.QueryCanceled):
            look(connection, DBConfig(), NAMES)
    # The next one has its time again, and the session is as it was.
    assert look(connection, DBConfig(), NAMES).queued == dict.fromkeys(NAMES, 0)
    [(bound,)] = connection.execute("SHOW statement_timeout").fetchall()
    assert bound == "0"
