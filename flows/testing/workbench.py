"""The workbench: executes the runs of a test where the test is, when it says so.

Time passes in the database. `advance` moves the runs back: when they were begun, when they wake,
their deadlines. Schedules stay where they are, because the id of a tick's run is made from its
time, and are fired by a clock that is ahead; so the runs they begin are moved back as well.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from flows import crashes, leases, payloads, sql
from flows.client import Client
from flows.clock import StopSignal, monotonic, seconds
from flows.config import DBConfig
from flows.database import connect
from flows.errors import ConfigError
from flows.firing import fire_due
from flows.ids import RunKey
from flows.payloads import Payload
from flows.shard import shard_values_for_workflow
from flows.testing.deaths import Death, Doom, die
from flows.testing.watching import watched
from flows.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flows.context import Context
    from flows.registry import Registry

__all__ = ["StepMemo", "Workbench"]

LIMIT = 1000
"""Attempts after which a test is told that its runs do not end."""

_MOURN_S = 30.0
"""How long the server may take to notice that a process is dead."""

_ANY = object()


class StepMemo(NamedTuple):
    """What is stored of a step.

    Attributes:
        key: the step's key.
        status: `completed`, or `failed` if its last try raised.
        tries: in the attempt that stored it.
        output: what it returned, in plain builtins; None if it failed.
        error: type, message and traceback of its last try, None if it completed.
    """

    key: str
    status: str
    tries: int
    output: Any
    error: str | None


class Workbench:
    """Executes runs of a registry in the process of a test. Close it, or use it by `with`.

    When a method has returned, what it did is committed. Between the tries of a step nothing is
    waited for, whatever its `backoff` says.

    Attributes:
        client: begins runs, publishes events and asks after runs in this database.
    """

    def __init__(self, dsn: str, registry: Registry, *, db_config: DBConfig | None = None) -> None:
        """Connect to a database with the tables, as the fixture `flows_dsn` gives it.

        Args:
            dsn: the database; the schedules and runs that are there are taken into account.
            registry: the workflows to execute; others' runs stay queued.
            db_config: where the tables live.

        Raises:
            ConfigError: the registry is empty, or the DSN cannot be read.
            DatabaseError: the database cannot be reached.
            SchemaError: it has not the tables.
        """
        registry.check_not_empty()
        self._dsn = dsn
        self._registry = registry
        self._config = db_config or DBConfig()
        self._calls: Counter[tuple[RunKey, str]] = Counter()
        self._ahead = timedelta()
        self._worker: Worker | None = None
        self.client = Client.connect(dsn, db_config=self._config)
        self._connection = connect(dsn, "flows workbench")

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._put_worker_away()
        self._connection.close()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drain(self, limit: int = LIMIT) -> int:
        """Fire the schedules that are due, then execute runs until none is due.

        Returns:
            How many attempts were executed. A run that sleeps or waits takes one each time.

        Raises:
            AssertionError: there are more than `limit`, as of a run that always begins another.
        """
        self._fire()
        if self._worker is None:
            copy = watched(self._registry, self._call)
            self._worker = Worker(copy, self._dsn, db_config=self._config)
        attempts = 0
        while self._worker.process_one():
            attempts += 1
            if attempts > limit:
                raise AssertionError(f"runs are still due after {limit} attempts")
        return attempts

    def advance(self, duration: timedelta) -> None:
        """Let time pass for the runs and schedules of the registry; nothing is executed.

        To them it is as if all workers had been off for so long. The next `drain` executes what
        is due by then: runs that slept or were delayed or are to be tried again, and ticks of
        schedules, of missed ones what their `catch_up` says. Runs past their deadline fail.

        Raises:
            ConfigError: `duration` is negative.
        """
        if duration < timedelta():
            raise ConfigError(f"time goes forward only, not by {duration}")
        self._ahead += duration
        with self._connection.transaction():
            self._move_back("backdate_runs", duration, begun_after=None)
            self._move_back("backdate_sleeps", duration)

    def crash_at(self, step_key: str, *, before: bool = False, limit: int = LIMIT) -> RunKey:
        """Execute runs as `drain` does, in another process that dies in a step, by SIGKILL.

        It dies when the step's function has returned and nothing of that is committed; the memos of
        earlier steps are, unless they go with `wf.tx`. Then what
        a supervisor does is done: the run is charged with the crash and may be executed again,
        until that has happened `max_crashes` times. What the process has changed in memory is
        lost with it.

        Args:
            step_key: the step, of whichever run comes to it first.
            before: die before the step's function is called.
            limit: attempts after which it gives up.

        Returns:
            The run in whose step it died.

        Raises:
            AssertionError: no run came to the step; says why.
        """
        self._fire()
        self._put_worker_away()
        death = die(Doom(step_key, before, limit), self._registry, self._dsn, self._config)
        self._calls.update(death.executed)
        if death.run is None:
            leases.release_worker(self._connection, self._config, death.worker_id)
            raise AssertionError(f"no process died in step {step_key!r}: {death.why}")
        self._charge(death, death.run, step_key)
        return death.run

    def steps(self, run_key: RunKey | str) -> list[StepMemo]:
        """Return what is stored of a run's steps, in the order the workflow comes to them."""
        key = RunKey.parse(str(run_key))
        values = {"shard": key.workflow_name_shard, "run_id": key.run_id}
        rows = self._connection.execute(self._query("show_steps"), values).fetchall()
        memos = []
        rows.sort(key=lambda row: row[-1] or 0)
        for step_key, status, tries, _, _, error, _, _, _, *output, _, _ in rows:
            value = payloads.decode(Payload(*output), Any) if status == "completed" else None
            memos.append(StepMemo(step_key, status, tries, value, error))
        return memos

    def calls(self, run_key: RunKey | str, step_key: str) -> int:
        """Return how often this workbench has called a step's function, in all tries and processes.

        More than once where it failed, or its process died before the memo was committed.
        """
        return self._calls[RunKey.parse(str(run_key)), step_key]

    def assert_step(
        self, run_key: RunKey | str, step_key: str, *, output: Any = _ANY, calls: int | None = None
    ) -> None:
        """Assert that a step has completed, and its memo is committed.

        Args:
            run_key: the run.
            step_key: the step.
            output: what it has returned, compared as it is stored.
            calls: how often its function was called; see `calls`.

        Raises:
            AssertionError: it has not, or there is another output or number; says which.
        """
        memos = {memo.key: memo for memo in self.steps(run_key)}
        memo = memos.get(step_key)
        if memo is None:
            raise AssertionError(f"step {step_key!r} has no memo; these have: {sorted(memos)}")
        if memo.status != "completed":
            raise AssertionError(f"step {step_key!r} has {memo.status}: {memo.error}")
        if output is not _ANY:
            workflow = self._registry.get(RunKey.parse(str(run_key)).workflow_name)
            expected = payloads.decode(workflow.encode(output), Any)
            if memo.output != expected:
                raise AssertionError(
                    f"step {step_key!r} has returned {memo.output!r}, not {expected!r}"
                )
        called = self.calls(run_key, step_key)
        if calls is not None and called != calls:
            raise AssertionError(f"step {step_key!r} was called {called} times, not {calls}")

    def _call(self, wf: Context, step_key: str, call: Callable[[], Any]) -> Any:
        self._calls[wf.run_key, step_key] += 1
        return call()

    def _fire(self) -> None:
        values = {"now": None}
        ((now,),) = self._connection.execute(self._query("read_time"), values).fetchall()
        names, at = self._registry.names(), now + self._ahead
        with self._connection.transaction():
            while fire_due(self._connection, self._config, names, None, at).schedules:
                pass
            self._move_back("backdate_runs", self._ahead, begun_after=now)

    def _move_back(self, query: str, duration: timedelta, **values: datetime | None) -> None:
        for name in self._registry.names():
            for shard in shard_values_for_workflow(name, self._config.shard_count):
                self._connection.execute(
                    self._query(query), {"shard": shard, "by_s": seconds(duration), **values}
                )

    def _charge(self, death: Death, run: RunKey, step_key: str) -> None:
        """Do what a supervisor does when a process has died, as soon as the server knows of it."""
        key = {"shard": run.workflow_name_shard, "run_id": run.run_id}
        row = self._connection.execute(self._query("show_run"), key).fetchone()
        assert row is not None
        workflow = self._registry.get(run.workflow_name)
        suspect = crashes.Suspect(str(run.run_id), row[3], step_key)
        charge = crashes.Charge(
            death.worker_id, death.pid, "SIGKILL", (suspect,), workflow.max_crashes
        )
        give_up_s = monotonic() + _MOURN_S
        # Until then the transaction of the dead holds the run.
        while not any(crashes.charge(self._connection, self._config, charge)):
            if monotonic() > give_up_s:
                raise AssertionError(f"run {run} is held by a process that is dead")
            StopSignal().wait(0.005)
        leases.release_worker(self._connection, self._config, death.worker_id)

    def _put_worker_away(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _query(self, name: str) -> bytes:
        return sql.load(name, self._config.schema)
