"""The sessions of `wf.tx`: what one attempt does to its session, and the next one finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from flows import Context, Registry, sessions
from flows.database import connect, is_lost
from tests.citus import not_on_citus
from tests.integration.ledger import STEPS, enter, entries, execute
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("ledger")


def many(runs: Runs, function: Callable[[Context, int], Any], times: int) -> list[Any]:
    """Execute a workflow several times with one worker, and return what the runs gave."""
    registry = Registry()
    registry.workflow("demo")(function)
    return [runs.output(runs.execute(registry, "demo", number)) for number in range(times)]


@pytest.mark.parametrize(
    ("leave", "look"),
    [
        ("CREATE TEMP TABLE staging (a int)", "SELECT to_regclass('pg_temp.staging')"),
        ("CREATE TEMPORARY TABLE staging AS SELECT 1", "SELECT to_regclass('pg_temp.staging')"),
        ("SET search_path TO nowhere", "SHOW search_path"),
        ("SELECT set_config('search_path', 'nowhere', false)", "SHOW search_path"),
        ("SELECT 1; SET search_path TO nowhere", "SHOW search_path"),
        (b"SET statement_timeout TO 12345", "SHOW statement_timeout"),
        (sql.SQL("SET ROLE pg_read_all_data"), "SELECT current_user"),
        ("SELECT pg_advisory_lock(7)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        ("LISTEN news", "SELECT count(*) FROM pg_listening_channels()"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors"),
        ("DO $$ BEGIN SET search_path TO nowhere; END $$", "SHOW search_path"),
    ],
)
def test_what_an_attempt_leaves_in_its_session_is_gone(runs: Runs, leave: Any, look: str) -> None:
    pids: list[int] = []

    def function(wf: Context, _number: int) -> Any:
        found, pid = (wf.tx.execute(each).fetchone() for each in (look, "SELECT pg_backend_pid()"))
        assert found is not None
        assert pid is not None
        pids.extend(pid)
        wf.tx.execute(leave)
        return str(found[0])

    first, second, third = many(runs, function, 3)
    assert first == second == third
    assert len(set(pids)) == 1


def test_a_session_that_cannot_be_cleaned_is_not_used_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a statement_timeout of the session's own would have it, if the server is slow.
    monkeypatch.setattr(sessions, "_CLEAN", "SELECT 1 / 0")

    def function(wf: Context, _number: int) -> Any:
        found = wf.tx.execute("SHOW work_mem").fetchone()
        wf.tx.execute("SET work_mem TO '5MB'")
        return found

    first, second = many(runs, function, 2)
    assert first == second


def test_a_session_that_was_cleaned_notices_the_loss_of_its_client_as_before(runs: Runs) -> None:
    interval = "SHOW client_connection_check_interval"

    def function(wf: Context, _number: int) -> Any:
        found = wf.tx.execute(interval).fetchone()
        wf.tx.execute("SET work_mem TO '5MB'")
        return found

    assert many(runs, function, 2) == [["100ms"], ["100ms"]]


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL ROLE nobody_much",
        "SET ROLE nobody_much",
        "SET LOCAL statement_timeout TO 1",
        "SET LOCAL client_encoding TO LATIN1",
    ],
)
def test_what_user_code_sets_for_itself_does_not_hinder_the_commit(
    runs: Runs, setting: str
) -> None:
    runs.connection.execute("CREATE ROLE nobody_much")
    try:
        runs.connection.execute("GRANT SELECT ON ledger TO nobody_much")
        key = "schritt-\N{LATIN SMALL LETTER U WITH DIAERESIS}/v1"

        def function(wf: Context) -> str:
            enter(wf, "kept")
            wf.tx.execute(setting)
            return wf.execute(key, lambda: "done")

        assert runs.output(execute(runs, function)) == "done"
        assert entries(runs) == ["kept"]
        assert runs.rows(STEPS) == [(key, "completed")]
    finally:
        runs.connection.execute("DROP OWNED BY nobody_much")
        runs.connection.execute("DROP ROLE nobody_much")


@pytest.fixture
def lock_timeout(runs: Runs) -> Iterator[None]:
    """Have statements of new sessions wait for a lock for 20 ms at most."""
    name = sql.Identifier(str(conninfo_to_dict(runs.dsn)["dbname"]))
    runs.connection.execute(sql.SQL("ALTER DATABASE {} SET lock_timeout TO '20ms'").format(name))
    yield
    runs.connection.execute(sql.SQL("ALTER DATABASE {} RESET lock_timeout").format(name))


@not_on_citus("it locks the tables of its own node")
@pytest.mark.usefixtures("lock_timeout")
def test_a_timeout_of_the_database_that_ends_a_statement_of_ours_interrupts_the_run(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    registry, gate = Registry(), Gate()

    @registry.workflow("demo")
    def demo(wf: Context) -> str:
        entry = wf.execute("enter/v1", lambda: enter(wf, "kept"))
        gate.pass_through()
        return entry

    key = runs.begin(demo)
    running = runs.start(registry)
    gate.wait_for_arrival()
    with psycopg.connect(runs.dsn) as other:
        other.execute("LOCK TABLE flows.steps IN SHARE MODE")
        gate.open()
        wait_until(lambda: "to be done again" in caplog.text, what="the run is interrupted")
    runs.wait_for(key, "completed")
    assert runs.status(key).attempts == 0
    running.stop()


def test_a_table_that_gets_a_column_fails_no_run(runs: Runs) -> None:
    def function(wf: Context, _number: int) -> int:
        # So often that psycopg prepares it.
        found = [wf.tx.execute("SELECT * FROM grown WHERE id = %s", (n,)) for n in range(10)]
        return len(found)

    runs.connection.execute("CREATE TABLE grown (id int)")
    registry = Registry()
    registry.workflow("demo")(function)
    assert runs.output(runs.execute(registry, "demo", 0)) == 10
    runs.connection.execute("ALTER TABLE grown ADD b int")
    key = runs.execute(registry, "demo", 1)
    assert runs.output(key) == 10
    assert runs.status(key).attempts == 0


def test_a_session_that_the_server_has_ended_is_lost_whatever_the_reason(runs: Runs) -> None:
    with connect(runs.dsn) as connection:
        connection.execute("SET idle_session_timeout TO '1ms'")
        pid = connection.info.backend_pid
        alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: runs.rows(alive, pid) == [(0,)], what="the session is ended")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT 1")
        assert is_lost(caught.value)
