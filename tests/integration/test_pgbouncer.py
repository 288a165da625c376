"""PgBouncer in transaction mode is found out; the way past it serves to wake up at once."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, ConfigError, Context, DatabaseError, Registry, Worker, every
from flows.database import connect, is_pooled, pipeline
from tests.integration.command import flows
from tests.pgbouncer import needs_pgbouncer, pgbouncer
from tests.running import RunningWorker, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_pgbouncer

HOUR = timedelta(hours=1)
ONLY_NOTIFIED: dict[str, Any] = {"poll_interval": HOUR, "max_poll_interval": HOUR}
RARELY: dict[str, Any] = {"poll_interval": timedelta(milliseconds=20), "max_poll_interval": HOUR}


@pytest.fixture
def pooled_dsn(runs: Runs) -> Iterator[str]:
    """The database of `runs`, through a pooler that has sessions enough."""
    with pgbouncer(runs.dsn) as dsn:
        yield dsn


def ledger_registry(concurrency: int = 1) -> Registry:
    registry = Registry()

    @registry.workflow("book", concurrency=concurrency)
    def book(wf: Context, n: int) -> int:
        doubled = wf.execute("double/v1", lambda n: 2 * n, n)
        wf.tx.execute("INSERT INTO public.ledger VALUES (%s, %s)", (n, doubled))
        return doubled

    return registry


def test_a_pooler_is_found_out_and_nothing_is_prepared_there(runs: Runs, pooled_dsn: str) -> None:
    with connect(runs.dsn) as direct, connect(pooled_dsn) as pooled:
        assert not is_pooled(direct)
        assert is_pooled(pooled)
        for _ in range(10):
            pooled.execute("SELECT %s::int", (1,))
        prepared = "SELECT count(*) FROM pg_prepared_statements"
        assert pooled.execute(prepared).fetchone() == (0,)


def test_a_pooler_that_keeps_sessions_is_found_out_too(runs: Runs) -> None:
    with pgbouncer(runs.dsn, pool_mode="session") as dsn, connect(dsn) as pooled:
        assert is_pooled(pooled)


def test_a_database_behind_the_pooler_that_is_not_there_is_a_database_error(runs: Runs) -> None:
    with (
        pgbouncer(runs.dsn + " dbname=nowhere") as dsn,
        pytest.raises(DatabaseError, match="cannot connect to the database"),
    ):
        connect(dsn)


def test_a_stricter_isolation_is_refused_where_it_cannot_be_changed(
    flows_dsn: str,
) -> None:
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        name = psycopg.sql.Identifier(connection.info.dbname)
        alter = psycopg.sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
        connection.execute(alter.format(name, "serializable"))
    with (
        pgbouncer(flows_dsn) as dsn,
        pytest.raises(DatabaseError, match="serializable by default"),
    ):
        connect(dsn)


def test_a_worker_drains_a_thousand_runs_with_business_rows(runs: Runs, pooled_dsn: str) -> None:
    runs.connection.execute("CREATE TABLE public.ledger (n int PRIMARY KEY, doubled int)")
    with psycopg.connect(pooled_dsn, prepare_threshold=None) as tx:
        keys = runs.client.begin_many_tx(tx, "book", range(999))
        keys.append(runs.client.begin_tx(tx, "book", 999))
    with Worker(ledger_registry(8), pooled_dsn, **RARELY) as worker:
        running = RunningWorker(worker).wait_until_ready()
        done = "SELECT count(*) FROM flows.runs WHERE status = 'completed'"
        wait_until(lambda: runs.rows(done) == [(1000,)], what="all are done", timeout_s=60)
        running.stop()
    assert runs.rows("SELECT count(*), sum(doubled - 2 * n) FROM public.ledger") == [(1000, 0)]
    assert runs.rows("SELECT max(claim), max(attempts) FROM flows.runs") == [(1, 0)]


def test_fewer_sessions_than_the_worker_has_connections_suffice(runs: Runs) -> None:
    runs.connection.execute("CREATE TABLE public.ledger (n int PRIMARY KEY, doubled int)")
    keys = runs.client.begin_many_tx(runs.connection, "book", range(200))
    with (
        pgbouncer(runs.dsn, pool_size=2) as dsn,
        Worker(ledger_registry(8), dsn, **RARELY) as worker,
    ):
        running = RunningWorker(worker).wait_until_ready()
        for key in keys:
            runs.wait_for(key, "completed", timeout_s=60)
        running.stop()
    assert runs.rows("SELECT count(*) FROM public.ledger") == [(200,)]


def test_no_session_is_kept_by_statements_that_were_sent_together(runs: Runs) -> None:
    def busy() -> None:
        while not done.is_set():
            pass

    done = threading.Event()
    # Each time that it waits, the sender gets the interpreter back too late: answers come between
    # any two messages of psycopg's.
    burner = threading.Thread(target=busy)
    with (
        pgbouncer(runs.dsn, pool_size=1, query_wait_timeout="5") as dsn,
        connect(dsn) as sender,
        connect(dsn) as other,
    ):
        burner.start()
        try:
            for _ in range(50):
                with pipeline(sender):
                    cursors = [sender.execute("SELECT %s::int", (n,)) for n in range(2)]
                assert [cursor.fetchone() for cursor in cursors] == [(0,), (1,)]
                other.execute("SELECT 1")
        finally:
            done.set()
            burner.join()


def test_random_values_within_transactions_get_past_a_pooler_that_has_no_session_left(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.journal.POOLED_SETTLE_S", 0.2)
    registry = Registry()

    @registry.workflow("draw")
    def draw(wf: Context) -> int:
        wf.tx.execute("SELECT 1")
        return wf.random_uint64("number/v1")

    key = runs.begin("draw")
    with pgbouncer(runs.dsn, pool_size=1) as dsn, Worker(registry, dsn, **RARELY) as worker:
        running = RunningWorker(worker).wait_until_ready()
        # The only session is the transaction's: the attempt gives it up and is begun again.
        runs.wait_for(key, "completed", timeout_s=30)
        running.stop()
    assert runs.status(key).attempts == 0
    numbers = runs.rows("SELECT value_bigint FROM flows.random")
    assert [number % 2**64 for (number,) in numbers] == [runs.output(key)]


def test_sleeps_events_and_schedules_go_by_polling_and_it_is_said_once(
    runs: Runs, pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()

    @registry.workflow("waiter")
    def waiter(wf: Context, nap_s: float) -> Any:
        wf.sleep("nap/v1", timedelta(seconds=nap_s))
        return wf.wait_for_event("number/v1", "Number")

    with (
        caplog.at_level(logging.WARNING, "flows"),
        Worker(registry, pooled_dsn, **RARELY) as worker,
    ):
        running = RunningWorker(worker).wait_until_ready()
        key = runs.begin("waiter", 0.05)
        runs.wait_for(key, "waiting_event")
        runs.publish(key, "Number", 7)
        runs.wait_for(key, "completed")
        runs.client.schedule_tx(runs.connection, "waiter", 0, "often", every(HOUR), run_now=False)
        runs.connection.execute("UPDATE flows.schedules SET next_run_at = now()")
        wait_until(lambda: len(runs.rows("SELECT 1 FROM flows.runs")) == 2, what="it has fired")
        running.stop()
    warnings = [record.getMessage() for record in caplog.records]
    [warning] = [text for text in warnings if "pooler" in text]
    assert warning == (
        "the database is reached through a pooler, which passes no notifications on: polling"
        " instead; name it without the pooler as well, by listen_dsn, --listen-dsn or"
        " FLOWS_LISTEN_URL"
    )


def test_past_the_pooler_notifications_are_heard_at_once(
    runs: Runs, pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs.connection.execute("CREATE TABLE public.ledger (n int PRIMARY KEY, doubled int)")
    with Worker(ledger_registry(), pooled_dsn, listen_dsn=runs.dsn, **ONLY_NOTIFIED) as worker:
        running = RunningWorker(worker).wait_until_ready()
        for n in range(3):
            with psycopg.connect(pooled_dsn, prepare_threshold=None) as tx:
                key = Client().begin_tx(tx, "book", n)
            runs.wait_for(key, "completed", timeout_s=3)
        running.stop()
    assert not caplog.records


def test_a_second_pooler_to_listen_through_is_doubted(
    runs: Runs, pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pgbouncer(runs.dsn, pool_mode="session") as session_dsn,
        Worker(ledger_registry(), pooled_dsn, listen_dsn=session_dsn, **ONLY_NOTIFIED) as worker,
    ):
        runs.connection.execute("CREATE TABLE public.ledger (n int PRIMARY KEY, doubled int)")
        running = RunningWorker(worker).wait_until_ready()
        runs.wait_for(runs.begin("book", 1), "completed", timeout_s=3)
        running.stop()
    assert "heard only if that keeps sessions" in caplog.text


def test_a_dsn_for_listening_that_leads_elsewhere_is_refused(
    runs: Runs, flows_dsn: str, pooled_dsn: str
) -> None:
    worker = Worker(ledger_registry(), pooled_dsn, listen_dsn=flows_dsn)
    with pytest.raises(ConfigError, match="leads to another database"):
        worker.run()


def test_nothing_of_the_engine_stays_in_the_poolers_sessions(runs: Runs) -> None:
    runs.connection.execute("CREATE TABLE public.ledger (n int PRIMARY KEY, doubled int)")
    with pgbouncer(runs.dsn, pool_size=1) as dsn:
        with Worker(ledger_registry(), dsn) as worker:
            runs.begin("book", 1)
            assert worker.process_one()
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as next_client:
            left = "SELECT (SELECT count(*) FROM pg_prepared_statements), count(*) FROM pg_settings"
            left += " WHERE source = 'session' AND name NOT IN ('application_name')"
            assert next_client.execute(left).fetchone() == (0, 0)
            assert next_client.execute("SELECT pg_listening_channels()").fetchall() == []


def test_the_tables_are_migrated_through_the_pooler(dsn: str) -> None:
    with pgbouncer(dsn, pool_size=1) as pooled:
        for expected in ("applied version 1 ", "is up to date"):
            done = flows("migrate", "--dsn", pooled)
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout


def test_migrations_at_once_through_few_sessions_wait_for_each_other(dsn: str) -> None:
    with pgbouncer(dsn, pool_size=2) as pooled:
        codes: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: codes.append(flows("migrate", "--dsn", pooled).returncode)
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [0, 0, 0]


APP = "tests.integration.cli_app:registry"
DRAIN = ["supervise", APP, "--drain", "--begin", 'rejecting="x"', "--only", "rejecting"]


def test_a_supervisor_drains_through_the_pooler_and_warns_once(runs: Runs, pooled_dsn: str) -> None:
    done = flows(*DRAIN, "--dsn", pooled_dsn)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("passes no notifications on") == 1
    assert runs.rows("SELECT status, attempts FROM flows.runs") == [("failed", 1)]


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_supervisor_that_knows_the_way_past_the_pooler_has_nothing_to_warn_of(
    runs: Runs, pooled_dsn: str, way: str
) -> None:
    option = ["--listen-dsn", runs.dsn] if way == "option" else []
    variable = {} if way == "option" else {"FLOWS_LISTEN_URL": runs.dsn}
    done = flows(*DRAIN, "--dsn", pooled_dsn, *option, env=variable)
    assert done.returncode == 1, done.stderr
    assert "pooler" not in done.stderr


def test_a_supervisor_is_not_started_with_a_way_that_leads_elsewhere(
    pooled_dsn: str, flows_dsn: str
) -> None:
    done = flows(*DRAIN, "--dsn", pooled_dsn, "--listen-dsn", flows_dsn)
    assert done.returncode == 3, done.stderr
    assert "leads to another database" in done.stderr
