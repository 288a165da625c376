"""Durations that no calendar holds: they cost their own run, schedule or shard, and nobody else."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, ConfigError, Context, Registry, RetryPolicy, RunRetryPolicy, every
from flows.clock import LONGEST
from flows.committer import Committer
from flows.database import connect
from flows.firing import fire_due
from flows.records import Outcome, OutcomeKind, RunRecord, WaitRecord
from flows.retention import Retention
from tests.running import Gate
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)

PAGES = 5
"""Of a pass over two shards with a run each, and one that cannot be pruned."""


def echo(wf: Context, value: str) -> str:
    return value


def fail(wf: Context, value: Any) -> None:
    raise ValueError("of the workflow")


def fail_after_a_step(wf: Context, value: Any) -> None:
    wf.execute("step/v1", lambda: value)
    raise ValueError("of the workflow")


def fail_in_a_transaction(wf: Context, value: Any) -> None:
    wf.tx.execute("SELECT 1")
    raise ValueError("of the workflow")


@pytest.mark.parametrize("backoff", [timedelta.max, timedelta.min], ids=["max", "min"])
@pytest.mark.parametrize("function", [fail, fail_after_a_step, fail_in_a_transaction])
def test_a_run_whose_next_attempt_is_beyond_the_calendar_costs_no_worker(
    runs: Runs, function: Callable[[Context, Any], None], backoff: timedelta
) -> None:
    registry = Registry()
    demo = registry.workflow("demo", run_retry=RunRetryPolicy(2, lambda _: backoff))(function)
    registry.workflow("echo")(echo)
    key = runs.execute(registry, demo, 1)
    assert runs.status(key).status != "running"
    assert runs.output(runs.execute(registry, "echo", "goes on")) == "goes on"


@pytest.mark.parametrize("wake_in_s", [timedelta.max / SECOND, timedelta.min / SECOND])
def test_a_failure_whose_retry_cannot_be_recorded_is_final_and_keeps_its_memos(
    runs: Runs, wake_in_s: float
) -> None:
    key = runs.begin("demo")
    runs.connection.execute("UPDATE flows.runs SET status = 'running', claim = 1")
    record = RunRecord(key.workflow_name_shard, str(key.run_id), 1)
    record.add_wait(WaitRecord("nap/v1", "sleep", None, is_satisfied=True))
    failures: list[BaseException] = []
    committer = Committer(
        runs.dsn, "flows", logging.getLogger("flows"), print, failures.append, None
    )
    committer.start()
    outcome = Outcome(OutcomeKind.FAILED, error_text="ValueError: odd", wake_in_s=wake_in_s)
    committer.submit(record, outcome)
    assert committer.stop(DEADLINE_S)
    assert failures == []
    assert (runs.status(key).status, runs.status(key).attempts) == ("failed", 1)
    assert runs.error(key).startswith(
        "ValueError: odd\n\nIt is not tried again: its next attempt cannot be recorded: "
    )
    assert runs.rows("SELECT wait_key FROM flows.waits") == [("nap/v1",)]


def test_a_sleep_beyond_the_calendar_fails_its_run_and_costs_no_worker(runs: Runs) -> None:
    registry = Registry()
    demo = registry.workflow("demo")(lambda wf: wf.sleep("for-ever/v1", timedelta.max))
    registry.workflow("echo")(echo)
    assert runs.status(runs.execute(registry, demo)).status == "failed"
    assert runs.output(runs.execute(registry, "echo", "goes on")) == "goes on"


def test_a_step_may_wait_for_its_next_try_for_longer_than_a_lock_can_be_waited_for(
    runs: Runs,
) -> None:
    registry, gate = Registry(), Gate()

    def fail_at_the_gate() -> None:
        gate.pass_through()
        raise ValueError("of the step")

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.execute("step/v1", fail_at_the_gate, retry=RetryPolicy(1, lambda _: LONGEST))

    key = runs.begin(demo)
    runs.start(registry)
    gate.wait_for_arrival()
    gate.open()
    runs.client.cancel_run_tx(runs.connection, key)

    wait_until(lambda: runs.status(key).status != "running", what="the run has ended")
    assert runs.status(key).status == "cancelled"


def test_a_worker_with_the_longest_grace_there_is_ends_when_its_runs_have(runs: Runs) -> None:
    registry = Registry()
    registry.workflow("echo")(echo)
    key = runs.begin("echo", "done")
    running = runs.start(registry, graceful_shutdown_timeout=LONGEST)
    runs.wait_for(key, "completed")
    running.stop()


def test_a_worker_refuses_a_grace_beyond_the_calendar(runs: Runs) -> None:
    with pytest.raises(ConfigError, match="graceful_shutdown_timeout"):
        runs.worker(Registry(), graceful_shutdown_timeout=timedelta.max)


def test_the_longest_timeout_of_a_run_is_one_that_can_be_claimed_with(runs: Runs) -> None:
    registry = Registry()
    demo = registry.workflow("demo", run_timeout=LONGEST)(lambda wf: str(wf.remaining))
    key = runs.execute(registry, demo)
    assert runs.output(key).startswith("365249 days")


def report(wf: Context, number: int) -> int:
    return number


def test_a_schedule_with_a_jitter_beyond_the_calendar_does_not_stop_the_others(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    registry.workflow("report")(report)
    for name in ("a-odd", "b-good"):
        runs.client.schedule_tx(runs.connection, "report", 1, name, every(HOUR))
    # As an earlier version has let it be stored.
    runs.connection.execute(
        "UPDATE flows.schedules SET next_run_at = now(), jitter = CASE"
        " WHEN schedule_id = 'a-odd' THEN interval '7300000 days' ELSE interval '0' END"
    )
    runs.start(registry)
    wait_until(
        lambda: runs.rows("SELECT 1 FROM flows.runs WHERE status = 'completed'"),
        what="the other has begun its run",
    )
    wait_until(lambda: "schedule a-odd cannot be fired" in caplog.text, what="it is told")
    disabled = runs.rows("SELECT schedule_id, error_text FROM flows.schedules WHERE NOT enabled")
    assert [name for name, _ in disabled] == ["a-odd"]
    assert "jitter" in disabled[0][1]


def test_a_tick_that_is_put_off_beyond_the_calendar_disables_its_schedule_alone(
    runs: Runs,
) -> None:
    last_year = datetime(9999, 1, 1, tzinfo=UTC)
    client = Client(now=lambda: last_year)
    client.schedule_tx(runs.connection, "report", 1, "a-odd", every(HOUR), jitter=LONGEST)
    client.schedule_tx(runs.connection, "report", 2, "b-good", every(HOUR))
    with connect(runs.dsn) as connection:
        fired = fire_due(connection, runs.config, ["report"], None, last_year + HOUR)
    assert (fired.schedules, fired.runs) == (2, 1)
    assert [name for name, _ in fired.disabled] == ["a-odd"]
    assert runs.rows("SELECT input_json FROM flows.runs") == [(2,)]


def test_a_jitter_beyond_the_calendar_is_refused(runs: Runs) -> None:
    with pytest.raises(ConfigError, match="jitter"):
        runs.client.schedule_tx(
            runs.connection, "report", 1, "odd", every(HOUR), jitter=timedelta(days=365 * 20_000)
        )


def test_the_scheduler_survives_what_nobody_foresaw(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("nobody foresaw this")]

    def fail_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return fire_due(*arguments)

    monkeypatch.setattr("flows.scheduler.fire_due", fail_once)
    registry = Registry()
    registry.workflow("report")(report)
    runs.client.schedule_tx(runs.connection, "report", 1, "soon", every(HOUR))
    runs.connection.execute("UPDATE flows.schedules SET next_run_at = now()")
    runs.start(registry)
    wait_until(lambda: runs.rows("SELECT 1 FROM flows.runs"), what="the schedule is fired")
    assert "nobody foresaw this" in caplog.text


def test_a_shard_that_cannot_be_pruned_does_not_keep_the_others_from_it(runs: Runs) -> None:
    runs.connection.execute(
        "INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, created_at,"
        " updated_at, finished_at)"
        " SELECT name || '_0', gen_random_uuid(), name, 'completed', at, at, at"
        " FROM unnest(ARRAY['before', 'odd', 'after']) AS name, (SELECT now() - interval '1 day')"
        " AS instant (at)"
    )
    # More than a registry takes.
    keep_s = {"before": 60.0, "odd": timedelta.max.total_seconds(), "after": 60.0}
    retention = Retention(runs.config, keep_s)
    deleted = failed = 0
    with connect(runs.dsn) as connection:
        for _ in range(PAGES):
            try:
                deleted += retention.work(connection)[0]
            except psycopg.DataError:
                failed += 1
        assert (deleted, failed) == (2, 1)
        assert retention.is_between_passes
        # The next pass tries it again.
        assert retention.work(connection) == (0, False)
        with pytest.raises(psycopg.DataError):
            retention.work(connection)


def test_the_longest_retention_there_is_deletes_nothing_and_refuses_nothing(runs: Runs) -> None:
    registry = Registry()
    key = runs.execute(registry, registry.workflow("demo")(lambda wf: None))
    retention = Retention(runs.config, {"demo": LONGEST.total_seconds()})
    with connect(runs.dsn) as connection:
        assert retention.work(connection) == (0, True)
    assert runs.status(key).status == "completed"
