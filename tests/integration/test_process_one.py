"""`Worker.process_one`: at most one run, in the calling thread, and everything of it committed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Client, Context, DatabaseError, Registry, Worker
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.running import Runs


@pytest.fixture
def executed() -> list[tuple[str, Any]]:
    """What the workflows of `registry` were executed with."""
    return []


@pytest.fixture
def registry(executed: list[tuple[str, Any]]) -> Registry:
    registry = Registry()

    @registry.workflow("a")
    def a(wf: Context, value: Any) -> None:
        executed.append(("a", value))

    @registry.workflow("b")
    def b(wf: Context, value: Any) -> None:
        executed.append(("b", value))

    return registry


def test_without_a_due_run_it_returns_false(runs: Runs, registry: Registry) -> None:
    with runs.worker(registry) as worker:
        assert worker.process_one() is False


def test_it_executes_one_run_in_this_thread_and_commits_it(runs: Runs) -> None:
    registry = Registry()
    threads: list[threading.Thread] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        threads.append(threading.current_thread())
        return wf.execute("step/v1", lambda: 3)

    keys = [runs.begin(demo) for _ in range(2)]
    with runs.worker(registry) as worker:
        assert worker.process_one() is True
        assert [runs.status(key).status for key in keys] == ["completed", "queued"]
        assert runs.rows("SELECT count(*) FROM flows.steps") == [(1,)]
        assert worker.process_one() is True
        assert worker.process_one() is False
    assert threads == [threading.current_thread()] * 2


def test_the_oldest_run_comes_first(
    runs: Runs, registry: Registry, executed: list[tuple[str, Any]]
) -> None:
    for value in range(3):
        runs.begin("a", value)
    runs.execute_due(registry)
    assert executed == [("a", 0), ("a", 1), ("a", 2)]


def test_workflows_take_turns(
    runs: Runs, registry: Registry, executed: list[tuple[str, Any]]
) -> None:
    for value in range(2):
        runs.begin("a", value)
        runs.begin("b", value)
    runs.execute_due(registry)
    assert sorted(executed[:2]) == [("a", 0), ("b", 0)]
    assert sorted(executed[2:]) == [("a", 1), ("b", 1)]


def test_it_finds_a_waiting_run_whose_event_nobody_told_of(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        return wf.wait_for_event("number/v1", "Number")

    key = runs.execute(registry, demo)
    Client(disable_notify=True).publish_event_tx(runs.connection, key, "Number", 3)
    # As if the publisher had seen the run while it was going to wait.
    runs.connection.execute("UPDATE flows.runs SET status = 'waiting_event'")
    runs.connection.execute(
        "UPDATE flows.waits SET payload_json = NULL, codec = NULL, satisfied_at = NULL"
    )
    assert runs.execute_due(registry) == 1
    assert runs.output(key) == 3


def test_a_run_that_is_not_due_is_left(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.sleep("cooldown/v1", timedelta(hours=1))

    key = runs.begin(demo)
    with runs.worker(registry) as worker:
        assert worker.process_one() is True
        assert worker.process_one() is False
    assert runs.status(key).status == "sleeping"


def test_a_failing_run_is_one_run_like_any_other(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        raise SystemExit(1)

    key = runs.begin(demo)
    with runs.worker(registry) as worker:
        assert worker.process_one() is True
    assert runs.status(key).status == "failed"


def test_two_workers_never_take_the_same_run(runs: Runs, registry: Registry) -> None:
    for value in range(2):
        runs.begin("a", value)
    inner: list[bool] = []
    outer = Registry()

    with runs.worker(outer) as one, runs.worker(outer) as other:

        @outer.workflow("a")
        def a(wf: Context, value: Any) -> None:
            if value == 0:
                inner.append(other.process_one())
                inner.append(other.process_one())

        assert one.process_one() is True
    assert inner == [True, False]
    assert runs.rows("SELECT status, claim FROM flows.runs") == [("completed", 1)] * 2


def test_it_may_not_be_called_inside_a_workflow_of_its_own(runs: Runs) -> None:
    own, refused = Registry(), []
    workers: list[Worker] = []

    @own.workflow("own")
    def reentrant(wf: Context) -> None:
        with pytest.raises(ValueError, match="busy") as caught:
            workers[0].process_one()
        refused.append(caught.value)

    key = runs.begin(reentrant)
    with runs.worker(own) as worker:
        workers.append(worker)
        worker.process_one()
    assert runs.status(key).status == "completed"
    assert len(refused) == 1


def test_a_lost_connection_is_an_error_once_and_nothing_is_stuck(
    runs: Runs, registry: Registry
) -> None:
    with runs.worker(registry) as worker:
        assert worker.process_one() is False
        key = runs.begin("a", 1)
        runs.connection.execute(
            "UPDATE flows.runs SET status = 'running', claim = 1, worker_id = %s",
            (worker.worker_id,),
        )
        [(ended,)] = runs.rows(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'flows worker'"
        )
        assert ended == 1
        with pytest.raises(DatabaseError, match="lost"):
            worker.process_one()
        # Also what had been claimed without an answer is there again.
        assert worker.process_one() is True
    assert runs.status(key).status == "completed"


def test_what_it_holds_is_released_by_stop(runs: Runs, registry: Registry) -> None:
    worker = runs.worker(registry)
    worker.process_one()
    worker.stop()
    worker.stop()
    sessions = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'flows%%'
    """
    wait_until(lambda: runs.rows(sessions) == [(0,)], what="every session is closed")
    assert runs.rows("SELECT stopped_at IS NOT NULL FROM flows.workers") == [(True,)]
