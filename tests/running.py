"""Runs of one test: begun, executed by workers of its own, and looked at."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import psycopg

from flows import Client, DBConfig, RunKey, Worker
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from flows import Registry, RunStatus

__all__ = ["Gate", "RunningWorker", "Runs"]


class Gate:
    """Where a step or a workflow stops until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def pass_through(self) -> None:
        """Say that somebody is here, and wait until the gate is open."""
        self._arrived.release()
        assert self._opened.wait(DEADLINE_S), "the gate was never opened"

    def wait_for_arrival(self) -> None:
        """Wait until one more has come."""
        assert self._arrived.acquire(timeout=DEADLINE_S), "nobody came to the gate"

    def open(self) -> None:
        """Let everybody pass, from now on."""
        self._opened.set()


class RunningWorker:
    """A worker that runs in a thread.

    Attributes:
        worker: the worker.
        failure: what `run` raised; who expects it takes it with `wait_for_failure`.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker of a test")
        self._thread.start()

    def wait_until_ready(self) -> Self:
        """Wait until the worker claims."""
        wait_until(
            lambda: self.worker.ready.is_set() or not self._thread.is_alive(),
            what="the worker is ready",
        )
        return self

    def wait_until_ended(self) -> None:
        """Wait until `run` has returned or raised."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the worker does not end"

    def wait_for_failure(self) -> BaseException:
        """Wait until `run` has raised, and return what."""
        self.wait_until_ended()
        failure, self.failure = self.failure, None
        assert failure is not None, "the worker ended without a failure"
        return failure

    def stop(self) -> None:
        """Stop the worker; raises what `run` has raised."""
        self.worker.stop()
        self.wait_until_ended()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001  raised again by whoever stops it
            self.failure = error


class Runs:
    """The runs of one database.

    Attributes:
        dsn: the database.
        config: where its tables are.
        client: begins runs there.
        connection: the test's own, in autocommit.
    """

    def __init__(self, dsn: str, config: DBConfig | None = None) -> None:
        self.dsn = dsn
        self.config = config or DBConfig()
        self.client = Client(db_config=self.config)
        self.connection = psycopg.connect(dsn, autocommit=True)
        self._running: list[RunningWorker] = []
        self._workers: dict[int, Worker] = {}
        self._all: list[Worker] = []

    def begin(self, workflow: Any, input: Any = None) -> RunKey:  # noqa: A002
        """Begin a run, committed."""
        return self.client.begin_tx(self.connection, workflow, input)

    def publish(self, key: RunKey, event_name: str, payload: Any = None) -> None:
        """Publish an event, committed."""
        self.client.publish_event_tx(self.connection, key, event_name, payload)

    def status(self, key: RunKey) -> RunStatus:
        """Return the state of a run."""
        return self.client.get_run_status_tx(self.connection, key)

    def output(self, key: RunKey, value_type: Any = Any) -> Any:
        """Return the output of a run."""
        return self.client.get_run_output_tx(self.connection, key, value_type)

    def error(self, key: RunKey) -> str:
        """Return the error of a run that has one."""
        error = self.status(key).error
        assert error is not None, f"run {key} has no error"
        return error

    def rows(self, statement: Any, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return self.connection.execute(statement, params).fetchall()

    def wait_for(self, key: RunKey, status: str, timeout_s: float = DEADLINE_S) -> RunStatus:
        """Wait until a run has a status."""
        wait_until(
            lambda: self.status(key).status == status,
            what=f"run {key} is {status}",
            timeout_s=timeout_s,
        )
        return self.status(key)

    def worker(self, registry: Registry, **options: Any) -> Worker:
        """Return a worker for `registry` on this database, which ends with the test."""
        options = {"graceful_shutdown_timeout": timedelta(seconds=5), **options}
        worker = Worker(registry, self.dsn, db_config=self.config, **options)
        self._all.append(worker)
        return worker

    def start(self, registry: Registry, **options: Any) -> RunningWorker:
        """Start a worker in a thread, and wait until it claims."""
        running = RunningWorker(self.worker(registry, **options))
        self._running.append(running)
        return running.wait_until_ready()

    def execute_due(self, registry: Registry) -> int:
        """Execute in this thread what is due now; return how many attempts that were."""
        worker = self._workers.setdefault(id(registry), self.worker(registry))
        attempts = 0
        while worker.process_one():
            attempts += 1
        return attempts

    def execute(self, registry: Registry, workflow: Any, input: Any = None) -> RunKey:  # noqa: A002
        """Begin a run and execute it, as far as it goes at once."""
        key = self.begin(workflow, input)
        self.execute_due(registry)
        return key

    def close(self) -> None:
        """Stop what was started here."""
        try:
            for worker in self._all:
                worker.stop()
            for running in self._running:
                running.stop()
        finally:
            self.connection.close()
