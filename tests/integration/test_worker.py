"""The worker's life: how it begins, what it refuses, how it ends."""

from __future__ import annotations

import logging
import signal
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from flows import ConfigError, Context, DatabaseError, Registry, SchemaError, Worker
from tests.running import Gate, RunningWorker, Runs
from tests.waiting import DEADLINE_S, wait_until

MS = timedelta(milliseconds=1)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()

    @registry.workflow("echo")
    def echo(wf: Context, value: Any) -> Any:
        return value

    return registry


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"poll_interval": timedelta()}, "poll_interval"),
        ({"poll_interval": 2 * MS, "max_poll_interval": MS}, "poll_interval"),
        ({"graceful_shutdown_timeout": -MS}, "graceful_shutdown_timeout"),
        ({"notify_channel": "a b"}, "notify_channel"),
    ],
)
def test_an_option_that_cannot_work_is_refused(
    registry: Registry, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Worker(registry, "dbname=any", **options)


def test_a_dsn_that_cannot_be_read_is_refused_without_repeating_it(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="DSN cannot be read") as caught:
        Worker(registry, "postgres//user:secret@host")
    assert "secret" not in str(caught.value)


def test_an_empty_registry_is_refused(flows_dsn: str) -> None:
    worker = Worker(Registry(), flows_dsn)
    with pytest.raises(ConfigError, match="empty"):
        worker.run()
    with pytest.raises(ConfigError, match="empty"):
        worker.process_one()


def test_a_database_that_is_not_there_is_named(registry: Registry, server_dsn: str) -> None:
    dsn = psycopg.conninfo.make_conninfo(server_dsn, dbname="no_such_database")
    for use in (Worker(registry, dsn).run, Worker(registry, dsn).process_one):
        with pytest.raises(DatabaseError, match='"no_such_database" does not exist'):
            use()


def test_missing_tables_are_an_error_that_names_the_command(registry: Registry, dsn: str) -> None:
    for use in (Worker(registry, dsn).run, Worker(registry, dsn).process_one):
        with pytest.raises(SchemaError, match="no flows tables; run: flows migrate"):
            use()


def test_a_worker_runs_outside_the_main_thread_and_executes(runs: Runs, registry: Registry) -> None:
    assert threading.current_thread() is threading.main_thread()
    running = runs.start(registry)
    key = runs.begin("echo", 3)
    runs.wait_for(key, "completed")
    running.stop()
    assert runs.output(key) == 3


def test_a_worker_runs_in_the_main_thread_and_is_stopped_by_a_signal_handler(
    runs: Runs, registry: Registry
) -> None:
    worker = runs.worker(registry)
    before = signal.signal(signal.SIGUSR1, lambda *_: worker.stop())
    ident = threading.main_thread().ident
    assert ident is not None

    def interrupt() -> None:
        worker.ready.wait(DEADLINE_S)
        signal.pthread_kill(ident, signal.SIGUSR1)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        worker.run()
    finally:
        interrupter.join()
        signal.signal(signal.SIGUSR1, before)


def test_stop_may_be_called_twice_and_from_several_threads(runs: Runs, registry: Registry) -> None:
    running = runs.start(registry)
    stoppers = [threading.Thread(target=running.worker.stop) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    running.wait_until_ended()
    running.stop()


def test_a_worker_stopped_before_it_runs_ends_at_once(runs: Runs, registry: Registry) -> None:
    worker = runs.worker(registry)
    worker.stop()
    running = RunningWorker(worker)
    running.wait_until_ended()
    assert running.failure is None


def test_a_workflow_may_stop_its_own_worker(runs: Runs) -> None:
    own = Registry()
    workers: list[Worker] = []

    @own.workflow("last")
    def last(wf: Context) -> str:
        workers[0].stop()
        return "done"

    key = runs.begin(last)
    workers.append(runs.worker(own))
    workers[0].run()
    assert runs.output(key) == "done"


def test_a_worker_can_run_again_after_it_was_stopped(runs: Runs, registry: Registry) -> None:
    worker = runs.worker(registry)
    for value in range(2):
        running = RunningWorker(worker).wait_until_ready()
        key = runs.begin("echo", value)
        runs.wait_for(key, "completed")
        running.stop()
    key = runs.begin("echo", 3)
    assert worker.process_one()
    worker.stop()
    assert runs.output(key) == 3


def test_a_worker_does_one_thing_at_a_time(runs: Runs, registry: Registry) -> None:
    running = runs.start(registry)
    with pytest.raises(ConfigError, match="busy"):
        running.worker.run()
    with pytest.raises(ConfigError, match="busy"):
        running.worker.process_one()


def test_a_worker_leaves_neither_threads_nor_sessions(runs: Runs, registry: Registry) -> None:
    sessions = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'flows%%'
    """
    before = set(threading.enumerate())
    running = runs.start(registry)
    assert runs.rows(sessions) != [(0,)]
    running.stop()
    assert set(threading.enumerate()) == before
    wait_until(lambda: runs.rows(sessions) == [(0,)], what="every session is closed")


def test_a_worker_registers_its_lease_and_gives_it_up(runs: Runs, registry: Registry) -> None:
    state = """
        SELECT worker_id, workflow_names, lease_expires_at > now() + interval '10 s',
            stopped_at IS NULL
        FROM flows.workers
    """
    running = runs.start(registry)
    worker_id = running.worker.worker_id
    assert runs.rows(state) == [(worker_id, ["echo"], True, True)]
    running.stop()
    assert runs.rows(state) == [(worker_id, ["echo"], True, False)]


def test_runs_of_workflows_that_are_not_registered_stay_untouched(
    runs: Runs, registry: Registry
) -> None:
    other = runs.begin("other", 1)
    unlike = runs.begin("echo_1", 1)
    [before] = runs.rows("SELECT array_agg(r ORDER BY run_id) FROM flows.runs AS r")
    running = runs.start(registry)
    runs.wait_for(runs.begin("echo", 1), "completed")
    running.stop()
    assert runs.execute_due(registry) == 0
    [after] = runs.rows(
        "SELECT array_agg(r ORDER BY run_id) FROM flows.runs AS r WHERE workflow_name <> 'echo'"
    )
    assert after == before
    assert {runs.status(key).status for key in (other, unlike)} == {"queued"}


def test_tables_dropped_under_a_running_worker_are_waited_for(
    own_runs: Runs, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    own_runs.start(registry, poll_interval=20 * MS, max_poll_interval=20 * MS)
    own_runs.connection.execute("ALTER SCHEMA flows RENAME TO away")
    wait_until(lambda: "cannot claim, trying again" in caplog.text, what="the worker waits")
    own_runs.connection.execute("ALTER SCHEMA away RENAME TO flows")
    key = own_runs.begin("echo", 3)
    own_runs.wait_for(key, "completed")


def test_an_outcome_is_kept_until_the_tables_are_back(
    own_runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    gate, held = Gate(), Registry()

    @held.workflow("held")
    def hold(wf: Context) -> str:
        gate.pass_through()
        return "done"

    key = own_runs.begin(hold)
    own_runs.start(held)
    gate.wait_for_arrival()
    own_runs.connection.execute("ALTER SCHEMA flows RENAME TO away")
    gate.open()
    wait_until(lambda: "cannot commit, trying again" in caplog.text, what="the worker waits")
    own_runs.connection.execute("ALTER SCHEMA away RENAME TO flows")
    own_runs.wait_for(key, "completed")


def test_a_worker_logs_where_it_is_told(runs: Runs, registry: Registry) -> None:
    records: list[str] = []
    logger = logging.getLogger("of.the.application")
    logger.setLevel(logging.INFO)
    logger.propagate = False

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Recorder()
    logger.addHandler(handler)
    running = runs.start(registry, logger=logger)
    worker_id = running.worker.worker_id
    running.stop()
    logger.removeHandler(handler)
    assert f"worker {worker_id} ready" in records
