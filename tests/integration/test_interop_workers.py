"""Workers of the reference and ours on one workflow, side by side."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry
from flows.claims import Claimed, claim_runs
from flows.database import connect
from tests.citus import not_on_citus
from tests.crash.holds import Hold
from tests.reference import ReferenceClient, reference_attempt
from tests.running import Gate, Runs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def reference(runs: Runs) -> Iterator[ReferenceClient]:
    with psycopg.connect(runs.dsn, autocommit=True) as connection:
        yield ReferenceClient(connection)


def demo_registry(executed: list[str]) -> Registry:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, job: Any) -> Any:
        def step() -> str:
            executed.append("here")
            return "made here"

        made = wf.execute("step/v1", step)
        wf.sleep("nap/v1", timedelta())
        return [made, wf.wait_for_event("number/v1", "Number")]

    return registry


def test_a_run_that_the_reference_executes_is_skipped_and_not_waited_for(
    runs: Runs, reference: ReferenceClient
) -> None:
    executed: list[str] = []
    key = reference.begin("demo", "{}")
    with reference_attempt(runs.dsn, "demo") as attempt:
        assert attempt is not None
        # Here it is still queued: that transaction holds its row.
        assert runs.status(key).status == "queued"
        assert runs.execute_due(demo_registry(executed)) == 0
        attempt.complete('"there"')
    assert runs.output(key) == "there"
    assert executed == []


def test_a_run_that_we_execute_is_not_claimed_by_the_reference(
    runs: Runs, reference: ReferenceClient
) -> None:
    gate = Gate()
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, job: Any) -> None:
        gate.pass_through()

    key = reference.begin("demo", "{}")
    runs.start(registry)
    gate.wait_for_arrival()
    with reference_attempt(runs.dsn, "demo") as attempt:
        assert attempt is None
    gate.open()
    runs.wait_for(key, "completed")


@not_on_citus("the sleep of the reference is refused, which writes the clock's time")
def test_a_run_goes_from_the_reference_to_us_and_back(
    runs: Runs, reference: ReferenceClient
) -> None:
    executed: list[str] = []
    key = reference.begin("demo", "{}")
    with reference_attempt(runs.dsn, "demo") as there:
        assert there is not None
        there.step("step/v1", '"made there"')
        there.sleep("nap/v1")
    runs.execute_due(demo_registry(executed))
    assert executed == []
    assert reference.status(key).status == "waiting_event"
    reference.publish(key, "Number", "7")
    with reference_attempt(runs.dsn, "demo") as back:
        assert back is not None
        assert back.step("step/v1", '"made again"') == "made there"
        nap = back.wait_state("nap/v1", "sleep")
        assert nap is not None
        assert nap[2] is not None, "the sleep is over"
        number = back.wait_state("number/v1", "event")
        assert number is not None
        assert number[1] == 7
        assert number[2] is not None
        back.complete('["made there", 7]')
    assert runs.output(key) == ["made there", 7]


def test_a_run_that_we_have_begun_and_left_waiting_is_finished_by_the_reference(
    runs: Runs, reference: ReferenceClient
) -> None:
    registry = demo_registry([])
    key = runs.execute(registry, "demo", {"n": 1})
    # The event is there although nobody woke the run: the reference's claim looks itself.
    runs.connection.execute(
        "INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)"
        " VALUES (%s, %s, 'Number', '7')",
        key,
    )
    with reference_attempt(runs.dsn, "demo") as attempt:
        assert attempt is not None
        assert (attempt.key, attempt.input) == (key, {"n": 1})
        assert attempt.step("step/v1", '"made there"') == "made here"
        attempt.complete('"done"')
    assert runs.output(key) == "done"
    assert runs.execute_due(registry) == 0


def test_a_retry_of_the_reference_counts_the_failed_attempts_for_both(
    runs: Runs, reference: ReferenceClient
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context, job: Any) -> None:
        raise ValueError("here too")

    key = reference.begin("demo", "{}")
    with reference_attempt(runs.dsn, "demo") as attempt:
        assert attempt is not None
        attempt.retry("there")
    assert (runs.status(key).attempts, runs.error(key)) == (1, "there")
    runs.execute_due(registry)
    assert (reference.status(key).status, reference.status(key).attempts) == ("failed", 2)


def test_a_claim_sees_memos_that_the_reference_commits_while_it_is_looking(
    runs: Runs, reference: ReferenceClient
) -> None:
    held, tried = reference.begin("demo", "{}"), reference.begin("demo", "{}")
    # The reference takes what was begun first, we take what was due first.
    runs.connection.execute(
        "UPDATE flows.runs SET next_wake_at = now() - interval '2 h' WHERE run_id = %s",
        (held.run_id,),
    )
    runs.connection.execute(
        "UPDATE flows.runs SET created_at = now() - interval '1 h' WHERE run_id = %s",
        (tried.run_id,),
    )
    claimed: list[Claimed] = []

    def claim() -> None:
        with connect(runs.dsn) as connection:
            claimed.append(claim_runs(connection, "flows", ["demo_0"], 10, uuid.uuid4()))

    with Hold(runs.dsn, f"NEW.run_id = '{held.run_id}'") as hold:
        with reference_attempt(runs.dsn, "demo") as attempt:
            assert attempt is not None
            assert attempt.key == tried
            attempt.step("step/v1", '"made there"')
            attempt.retry("there")
            thread = threading.Thread(target=claim)
            thread.start()
            # The statement has seen both as they were; before it comes to the second, that one
            # is put back and due: the reference takes the time from when it began.
            hold.wait_for_arrival()
        assert runs.status(tried).status == "sleeping"
    thread.join()
    [found] = claimed
    assert str(held.run_id) in [run.run_id for run in found.runs]
    for run in found.runs:
        if run.run_id == str(tried.run_id):
            assert run.prefetched is not None
            assert "made there" in run.prefetched
