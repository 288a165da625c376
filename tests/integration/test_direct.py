"""Transactions of attempts, begun and committed by libpq itself: in whatever state a session is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql as compose
from psycopg.pq import PipelineStatus

from flows import Codec, Context, Registry, RetryPolicy, direct, libpq
from tests.integration.ledger import STEPS, enter, entries, execute
from tests.running import Runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.engine import Engine

pytestmark = pytest.mark.usefixtures("ledger")


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of each transaction that was committed directly."""
    outcomes: list[str] = []
    commit = direct.commit

    def observed(*args: Any) -> None:
        try:
            commit(*args)
        except psycopg.Error as error:
            outcomes.append(type(error).__name__)
            raise
        outcomes.append("committed")

    monkeypatch.setattr(direct, "commit", observed)
    return outcomes


def twice(runs: Runs, function: Callable[[Context, int], Any]) -> Engine:
    """Execute two runs one after the other, on the same session."""
    registry = Registry()
    demo = registry.workflow("demo")(function)
    with runs.worker(registry) as worker:
        for number in (1, 2):
            key = runs.begin(demo, number)
            while (status := runs.status(key).status) != "completed":
                assert status != "failed", runs.error(key)
                worker.process_one()
        assert worker._services is not None
        return worker._services.engine


def test_a_run_with_a_memo_and_an_output_is_committed_directly(
    runs: Runs, committed: list[str]
) -> None:
    def function(wf: Context) -> str:
        wf.execute("before/v1", lambda: 1)
        wf.execute("step/v1", lambda: enter(wf, "in a step"))
        return "\N{SNOWMAN} 'quoted' \\ back"

    key = execute(runs, function)
    assert committed == ["committed"]
    assert runs.output(key) == "\N{SNOWMAN} 'quoted' \\ back"
    assert runs.rows(STEPS) == [("before/v1", "completed"), ("step/v1", "completed")]
    assert entries(runs) == ["in a step"]


def test_a_session_that_has_forgotten_everything_is_taught_anew(
    runs: Runs, committed: list[str]
) -> None:
    def function(wf: Context, number: int) -> None:
        enter(wf, f"an entry {number}")
        # Between the two runs: psycopg does the same after a ROLLBACK.
        wf.tx.execute("DEALLOCATE ALL")

    twice(runs, function)
    assert entries(runs) == ["an entry 1", "an entry 2"]
    assert committed == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE passing",
        "ALTER TABLE passing ADD more int",
        "DEALLOCATE ALL",
        "SAVEPOINT mine; ROLLBACK TO SAVEPOINT mine",
        "ROLLBACK TO SAVEPOINT kept",
    ],
)
def test_after_what_makes_a_session_forget_the_rest_goes_by_psycopg(
    runs: Runs, committed: list[str], statement: str
) -> None:
    def function(wf: Context, number: int) -> None:
        enter(wf, f"an entry {number}")
        wf.tx.execute("CREATE TEMP TABLE passing (one int) ON COMMIT DROP; SAVEPOINT kept")
        wf.tx.execute(statement.encode())
        wf.execute("step/v1", lambda: enter(wf, f"in a step {number}"))

    twice(runs, function)
    assert len(entries(runs)) == 4
    assert committed == []


def test_a_block_that_is_undone_and_a_step_that_is_tried_again_go_by_psycopg(
    runs: Runs, committed: list[str]
) -> None:
    tries: list[int] = []

    def fails_once(wf: Context, number: int) -> None:
        tries.append(1)
        enter(wf, f"tried {number}")
        if len(tries) % 2:
            raise ValueError

    def function(wf: Context, number: int) -> None:
        with wf.tx.transaction():
            enter(wf, f"undone {number}")
            raise psycopg.Rollback
        wf.execute("step/v1", lambda: fails_once(wf, number), retry=RetryPolicy(max_retries=1))

    twice(runs, function)
    assert entries(runs) == ["tried 1", "tried 2"]
    assert committed == []


def test_forgetting_that_nobody_could_see_costs_an_attempt_and_only_once(
    runs: Runs, committed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[str] = []

    def function(wf: Context, number: int) -> None:
        attempts.append(str(wf.run_id))
        enter(wf, f"an entry {number}")
        # The first statement's tag is all that is looked at, and psycopg looks at each.
        wf.tx.execute("SELECT 2", prepare=True)
        wf.tx.execute("SELECT 1; CREATE TEMP TABLE passing (); DROP TABLE passing")
        enter(wf, f"another {number}")

    with caplog.at_level(logging.WARNING):
        engine = twice(runs, function)
    assert committed == ["InvalidSqlStatementName"]
    assert "forgotten its prepared statements" in caplog.text
    assert len(attempts) == 3
    assert entries(runs) == ["an entry 1", "an entry 2", "another 1", "another 2"]
    assert not engine.sends_directly
    assert runs.rows("SELECT DISTINCT attempts FROM flows.runs") == [(0,)]


def test_memos_that_are_large_go_by_psycopg(
    runs: Runs, committed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MAX_BYTES", 1000)

    def function(wf: Context) -> None:
        enter(wf, "an entry")
        wf.execute("large/v1", lambda: "x" * 1000)

    execute(runs, function)
    assert committed == []
    assert runs.rows(STEPS) == [("large/v1", "completed")]


def test_more_than_a_socket_takes_is_sent(
    runs: Runs, committed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MAX_BYTES", 2**30)
    large = "x" * 8_000_000

    def function(wf: Context) -> str:
        enter(wf, "an entry")
        for number in range(3):
            wf.execute(f"large-{number}/v1", lambda: large)
        return large

    key = execute(runs, function)
    assert committed == ["committed"]
    assert runs.output(key) == large


def test_an_error_at_commit_is_the_runs(runs: Runs, committed: list[str]) -> None:
    runs.connection.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, parent int REFERENCES orders"
        " DEFERRABLE INITIALLY DEFERRED)"
    )

    def function(wf: Context) -> None:
        wf.tx.execute("INSERT INTO orders VALUES (1, 2)")

    key = execute(runs, function)
    assert committed == ["ForeignKeyViolation"]
    assert runs.status(key).status == "failed"
    assert runs.error(key).startswith("psycopg.errors.ForeignKeyViolation")


class CutCodec(Codec):
    """What is behind a NUL never reaches the server."""

    name = "cut"
    storage = "jsonb"

    def encode(self, value: Any) -> bytes:
        return b"1\0" if value == 1 else b"2"

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002
        return int(data.rstrip(b"\0"))


def test_a_value_that_would_be_cut_off_is_refused_and_the_next_run_is_not(
    runs: Runs, committed: list[str]
) -> None:
    registry = Registry()

    @registry.workflow("demo", codec=CutCodec())
    def demo(wf: Context, number: int) -> int:
        enter(wf, f"an entry {number}")
        return number

    with runs.worker(registry) as worker:
        for number, status in ((1, "failed"), (2, "completed")):
            key = runs.begin("demo", number)
            assert worker.process_one()
            runs.wait_for(key, status)
            if status == "failed":
                assert "NUL" in runs.error(key)
    assert committed == ["DataError", "committed"]
    assert entries(runs) == ["an entry 2"]


def test_a_session_of_another_encoding_is_served(runs: Runs, committed: list[str]) -> None:
    def function(wf: Context, number: int) -> str:
        wf.tx.execute(compose.SQL("SET client_encoding TO {}").format("LATIN1"))
        return wf.execute("step/v1", lambda: "\N{LATIN SMALL LETTER E WITH ACUTE}")

    engine = twice(runs, function)
    assert committed == ["committed"] * 2
    assert engine.sends_directly
    rows = runs.rows("SELECT DISTINCT output_json #>> '{}' FROM flows.runs")
    assert rows == [("\N{LATIN SMALL LETTER E WITH ACUTE}",)]


def test_ctrl_c_while_a_commit_is_answered_is_raised(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.workflow("demo")(lambda wf: enter(wf, "kept"))
    key = runs.begin("demo")
    answers, interrupted = libpq._answers_to, False

    def interrupt_once(connection: Any) -> Any:
        nonlocal interrupted
        if interrupted or connection.pgconn.pipeline_status == PipelineStatus.OFF:
            return answers(connection)
        interrupted = True
        raise KeyboardInterrupt

    monkeypatch.setattr(libpq, "_answers_to", interrupt_once)
    worker = runs.worker(registry)
    with pytest.raises(KeyboardInterrupt):
        worker.process_one()
    worker.stop()
    runs.execute_due(registry)
    assert runs.output(key) == "kept"
    assert entries(runs) == ["kept"]
