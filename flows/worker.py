"""The worker: dispatchers, executors and a committer in one process.

    Worker ─┬─ per workflow: dispatcher ──> `concurrency` executors ─┐
            ├─ committer <──────── memos and outcomes ───────────────┘
            ├─ lease keeper (renews this worker's lease, rescues runs of lost workers)
            └─ scheduler (begins the runs of schedules at their times)

Under a supervisor each worker is a process of its own with one workflow, and the maintenance
process keeps the leases.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Self

import psycopg

from flows import leases, run_logging
from flows.attempt import Attempt
from flows.clock import LONGEST, LONGEST_WAIT_S, monotonic, seconds
from flows.config import (
    DEFAULT_NOTIFY_CHANNEL,
    DEFAULT_TIMEOUT_GRACE,
    DBConfig,
    check_identifier,
)
from flows.database import check_dsn, is_lost
from flows.dispatcher import Dispatcher, Polling
from flows.errors import ConfigError, DatabaseError, LeaseLostError
from flows.executor import ExecutorPool
from flows.picking import Picker
from flows.records import Outcome, OutcomeKind, RunRecord
from flows.scheduler import Scheduler
from flows.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from flows.board import Board
    from flows.database import Connection
    from flows.engine import Engine
    from flows.meter import Meter
    from flows.registry import Registry

__all__ = ["Worker"]

INTERRUPT_GRACE_S = 0.5
"""How long attempts have to notice that the grace period is over, before their transactions are
cut off."""

TURN_S = 0.5

_SPANS = ("poll_interval", "max_poll_interval", "graceful_shutdown_timeout", "timeout_grace")


class Worker:
    """Runs the workflows of a registry in this process.

    `run` blocks until `stop`; `process_one` executes a single run in the calling thread. A worker
    that has used `process_one` holds connections until `stop`, or use it as a context manager.
    """

    def __init__(
        self,
        registry: Registry,
        dsn: str,
        *,
        listen_dsn: str | None = None,
        poll_interval: timedelta = timedelta(milliseconds=250),
        max_poll_interval: timedelta = timedelta(seconds=30),
        db_config: DBConfig | None = None,
        disable_notify: bool = False,
        notify_channel: str | None = None,
        graceful_shutdown_timeout: timedelta | None = timedelta(seconds=30),
        logger: logging.Logger | None = None,
        worker_id: uuid.UUID | None = None,
        supervisor_id: uuid.UUID | None = None,
        board: Board | None = None,
        timeout_grace: timedelta = DEFAULT_TIMEOUT_GRACE,
        on_stuck: Callable[[str], None] | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Describe a worker; nothing is opened before `run` or `process_one`.

        Args:
            registry: the workflows to run; others' runs stay queued.
            dsn: the database, as libpq takes it; a pooler is found out.
            listen_dsn: where `dsn` leads through a pooler, the same database without it. What
                claims and fires schedules uses it, and hears of new runs at once. Without, it
                polls every `poll_interval`.
            poll_interval: how long to wait after the first look that found nothing.
            max_poll_interval: bound of that wait, which doubles while nothing is found. With
                `disable_notify` it stays at `poll_interval`.
            db_config: where the tables live.
            disable_notify: neither listen nor notify; polling remains.
            notify_channel: another channel than `flows_run_wakeup`.
            graceful_shutdown_timeout: how long running attempts may go on after `stop`; None
                waits as long as they take.
            logger: where to log, by default the logger `flows`.
            worker_id: an id chosen beforehand, by a supervisor.
            supervisor_id: whose maintenance process keeps this worker's lease; None for a worker
                that keeps its own.
            board: where the executors of a registry with one workflow show what they do.
            timeout_grace: how long user code may take to end once its step's timeout or its run's
                deadline is over, or its run was cancelled. Then its thread is given up, and
                another one takes its place.
            on_stuck: told of each such thread, by another one; by default it is only logged.
            meter: counts what is done, for a registry with one workflow.

        Raises:
            ConfigError: an option cannot work.
        """
        _check_durations(poll_interval, max_poll_interval, graceful_shutdown_timeout, timeout_grace)
        channel = check_identifier("notify_channel", notify_channel or DEFAULT_NOTIFY_CHANNEL)
        self._registry = registry
        self._dsn = check_dsn(dsn)
        self._listen_dsn = None if listen_dsn is None else check_dsn(listen_dsn)
        self._config = db_config or DBConfig()
        self._picker = Picker(registry, self._config)
        self._channel = None if disable_notify else channel
        longest = poll_interval if disable_notify else max_poll_interval
        self._polling = Polling(seconds(poll_interval), seconds(longest))
        self._grace = graceful_shutdown_timeout
        self._timeout_grace_s = seconds(timeout_grace)
        self._on_stuck = on_stuck
        self._logger = logger or logging.getLogger("flows")
        self._worker_id = self._registered_id = worker_id or uuid.uuid4()
        self._supervisor_id = supervisor_id
        self._board, self._meter = board, meter
        # SimpleQueue.put may be called in a signal handler, Event.set may not.
        self._ending: SimpleQueue[None] = SimpleQueue()
        self._is_stopping = self._is_retiring = False
        self._failure: BaseException | None = None
        # Entered again by a signal handler that calls stop().
        self._life = threading.RLock()
        self._is_running = self._is_processing = False
        self._dispatchers: list[tuple[Dispatcher, ExecutorPool]] = []
        self._by_shard: dict[str, Dispatcher] = {}
        self._services: Services | None = None
        self._scheduler: Scheduler | None = None
        self._lease_checked_s = 0.0
        self.ready = threading.Event()

    @property
    def worker_id(self) -> uuid.UUID:
        """The id under which this worker claims; another one once its lease was lost or ended."""
        return self._worker_id

    @property
    def waits_for_database_since_s(self) -> float:
        """Since when, on the monotonic clock, a statement is under way; 0 if none is."""
        services, since_s = self._services, [d.waits_since_s for d, _ in self._dispatchers]
        if services is not None:
            since_s.append(services.engine.committer.waits_since_s)
        return min((each for each in since_s if each), default=0.0)

    def run(self) -> None:
        """Claim and execute runs until `stop` is called, from this or any other thread.

        Then claims nothing more, gives back what was not begun, and lets running attempts finish
        within the grace period. `ready` is set once the worker can claim.

        Raises:
            ConfigError: the registry is empty, the worker runs already, `listen_dsn` leads to
                another database, or unfinished runs are in shards beyond the configured count.
            SchemaError: the tables are missing or of another version.
            DatabaseError: the database cannot be reached at the start.
            LeaseLostError: under a supervisor, when this worker was judged dead.
        """
        with self._life:
            if self._is_running or self._is_processing:
                raise ConfigError("this worker is busy with run() or process_one()")
            self._is_running = True
        try:
            self._start_dispatchers(self._open().engine)
            self._start_scheduler()
            for dispatcher, _ in self._dispatchers:
                while not dispatcher.listening.wait(0.05) and not self._is_stopping:
                    pass
            self.ready.set()
            self._logger.info("worker %s ready", self._worker_id)
            self._wait_for_stop()
        finally:
            self.ready.clear()
            ended = self._worker_id
            self._shut_down()
            self._logger.info("worker %s stopped", ended)
            self._is_running = self._is_stopping = self._is_retiring = False
            self._ending = SimpleQueue()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def stop(self) -> None:
        """End `run`, or release what `process_one` holds.

        May be called again, from any thread and from a signal handler. Called before `run`, it
        ends that as soon as it begins.
        """
        self._is_retiring = False
        self._is_stopping = True
        self._ending.put(None)
        if not self._is_running and not self._is_processing:
            self._shut_down()

    def retire(self) -> None:
        """End `run` as `stop` does, but let running attempts take as long as they need.

        A later `stop` sets them the grace period after all.
        """
        self._is_retiring = True
        self._is_stopping = True
        self._ending.put(None)

    def process_one(self) -> bool:
        """Claim at most one due run of any workflow here and execute it in this thread.

        Returns:
            True if a run was executed, and what it left behind is committed.

        Raises:
            ConfigError: the registry is empty, or `run` is in progress.
            SchemaError: the tables are missing or of another version.
            DatabaseError: the database cannot be reached.
        """
        with self._life:
            if self._is_running or self._is_processing:
                raise ConfigError("this worker is busy with run() or process_one()")
            self._is_processing = True
        self._is_stopping = False
        try:
            if self._services is not None and self._services.connection.closed:
                # Ctrl-C has ended a claim of which nobody knows whether it was answered.
                self._shut_down()
            return self._process_one(self._open())
        except psycopg.Error as error:
            if not is_lost(error):
                raise
            # The next call connects anew; what was claimed without an answer is given back.
            self._is_stopping = True
            raise DatabaseError(f"the connection to the database was lost: {error}") from error
        finally:
            self._is_processing = False
            if self._is_stopping:
                self._shut_down()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_for_stop(self) -> None:
        # In turns where signals arrive: one that comes right before a wait does not end it, and
        # its handler, which may be the one to call stop(), would wait for the next signal.
        turn_s = TURN_S if threading.current_thread() is threading.main_thread() else None
        while True:
            with contextlib.suppress(Empty):
                self._ending.get(timeout=turn_s)
                return

    def _process_one(self, services: Services) -> bool:
        run = self._picker.pick(services.connection, self._check_lease)
        if run is None:
            return False
        engine = services.engine
        attempt = Attempt(engine, self._registry.get(run.shard.rpartition("_")[0]), run)
        attempt.execute()
        engine.committer.settle(attempt.record)
        if self._failure is not None:
            raise self._failure
        return True

    def _open(self) -> Services:
        if self._services is None:
            self._registry.check_not_empty()
            run_logging.install()
            # By the services, before anything is claimed.
            self._registered_id = self._worker_id
            self._services = Services.open(
                self._dsn,
                self._listen_dsn,
                self._config,
                identity=self._identity,
                transactions=sum(workflow.concurrency for workflow in self._registry),
                notify_channel=self._channel,
                logger=self._logger,
                on_queued=self._queued,
                on_lease_lost=self._lost,
                on_failure=self._fail,
                timeout_grace_s=self._timeout_grace_s,
                on_stuck=self._stuck,
                meter=self._meter,
            )
        return self._services

    def _identity(self) -> leases.WorkerIdentity:
        return leases.WorkerIdentity(self._worker_id, self._supervisor_id, self._registry.names())

    def _start_dispatchers(self, engine: Engine) -> None:
        board = self._board
        for workflow in self._registry:
            dispatcher = Dispatcher(
                engine,
                workflow,
                self._config,
                self._dsn,
                self._listen_dsn,
                self._polling,
                lambda: self._worker_id,
                self._check_lease,
                board,
            )
            cells = None
            if board is not None:
                cells = [board.cell(number) for number in range(workflow.concurrency)]
            executors = ExecutorPool(engine, workflow, dispatcher.room, cells)
            dispatcher.executors = executors
            self._dispatchers.append((dispatcher, executors))
            self._by_shard.update(dict.fromkeys(dispatcher.shards, dispatcher))
        for dispatcher, executors in self._dispatchers:
            executors.start()
            dispatcher.start()

    def _start_scheduler(self) -> None:
        if self._supervisor_id is not None:
            return  # the maintenance process fires the schedules
        self._scheduler = Scheduler(
            self._dsn,
            self._listen_dsn,
            self._config,
            self._logger,
            self._channel,
            self._polling.longest_s,
            self._registry.names(),
        )
        self._scheduler.start()

    def _queued(self, shard: str) -> None:
        dispatcher = self._by_shard.get(shard)
        if dispatcher is not None:
            dispatcher.queued(shard)

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self._is_stopping = True
        self._ending.put(None)

    def _stuck(self, what: str) -> None:
        self._logger.error("%s: its thread is given up, and another one takes its place", what)
        if self._on_stuck is not None:
            self._on_stuck(what)

    def _lost(self) -> None:
        """The lease was lost: what is claimed belongs to others; go on under a new id."""
        self._worker_id = uuid.uuid4()
        self._logger.warning("lease lost; registering anew as worker %s", self._worker_id)

    def _check_lease(self, connection: Connection) -> uuid.UUID:
        """Return the id to claim under: what nobody has registered, anybody may give back."""
        worker_id = self._worker_id
        if self._supervisor_id is None:
            if worker_id != self._registered_id:
                # The lease keeper may not have come so far yet.
                identity = self._identity()._replace(worker_id=worker_id)
                leases.register_worker(connection, self._config, identity)
                self._registered_id = worker_id
            return worker_id
        now_s = monotonic()
        if now_s - self._lease_checked_s >= seconds(leases.RENEW_INTERVAL):
            if not leases.is_live(connection, self._config, worker_id):
                raise LeaseLostError(f"worker {worker_id} has lost its lease")
            self._lease_checked_s = now_s
        return worker_id

    def _shut_down(self) -> None:
        with self._life:
            services, self._services = self._services, None
            lanes, self._dispatchers = self._dispatchers, []
            scheduler, self._scheduler = self._scheduler, None
        if services is None:
            return
        engine = services.engine
        # First of all: an executor that becomes free meanwhile would have another run claimed.
        for dispatcher, _ in lanes:
            dispatcher.stop()
        if scheduler is not None:
            scheduler.stop()
        self._by_shard.clear()
        pools = [executors for _, executors in lanes]
        for pool in pools:
            pool.give_back()
        self._finish(engine, pools)
        services.close(self._dsn, self._config, self._identity())
        self._worker_id = uuid.uuid4()

    def _finish(self, engine: Engine, pools: list[ExecutorPool]) -> None:
        """Let running attempts end within the grace period, then interrupt them."""
        while self._grace is None or self._is_retiring:
            if _all_stopped(pools, monotonic() + TURN_S):
                return
        deadline_s = monotonic() + min(seconds(self._grace), LONGEST_WAIT_S)
        if _all_stopped(pools, deadline_s):
            return
        engine.abandoned.set()
        for pool in pools:
            for attempt in pool.running():
                attempt.wake()
        deadline_s = monotonic() + INTERRUPT_GRACE_S
        if _all_stopped(pools, deadline_s):
            return
        left = [attempt for pool in pools for attempt in pool.running()]
        self._logger.warning("%d attempts interrupted: the grace period is over", len(left))
        for attempt in left:
            attempt.sever()
            record = attempt.record
            released = RunRecord(record.shard, record.run_id, record.claim)
            engine.committer.submit(released, Outcome(OutcomeKind.RELEASED))


def _all_stopped(pools: list[ExecutorPool], deadline_s: float) -> bool:
    """Ask every pool to stop, and tell whether all have."""
    stopped = [pool.stop(deadline_s) for pool in pools]
    return all(stopped)


def _check_durations(
    poll_interval: timedelta,
    max_poll_interval: timedelta,
    graceful_shutdown_timeout: timedelta | None,
    timeout_grace: timedelta,
) -> None:
    spans = (poll_interval, max_poll_interval, graceful_shutdown_timeout, timeout_grace)
    for name, span in zip(_SPANS, spans, strict=True):
        if span is not None and span > LONGEST:
            raise ConfigError(f"{name} must be at most a thousand years, not {span!r}")
    if poll_interval <= timedelta() or max_poll_interval < poll_interval:
        raise ConfigError("polling needs 0 < poll_interval <= max_poll_interval")
    if graceful_shutdown_timeout is not None and graceful_shutdown_timeout < timedelta():
        raise ConfigError("graceful_shutdown_timeout must not be negative")
    if timeout_grace <= timedelta():
        raise ConfigError("timeout_grace must be positive")
