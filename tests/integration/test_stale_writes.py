"""What a worker writes for a run that is no longer its own changes nothing, at any moment."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, leases, writes
from flows.config import DBConfig
from flows.payloads import Payload
from flows.records import (
    Outcome,
    OutcomeKind,
    RandomRecord,
    RunRecord,
    StepRecord,
    WaitRecord,
)
from tests.waiting import wait_for_lock_wait

if TYPE_CHECKING:
    from flows import RunKey
    from tests.running import Runs

MEMOS = """
    SELECT 'step', step_key, claim, output_json FROM flows.steps
    UNION ALL SELECT 'wait', wait_key, claim, payload_json FROM flows.waits
    UNION ALL SELECT 'random', rand_key, claim, to_jsonb(value_bigint) FROM flows.random
    ORDER BY 1
"""


def claimed(runs: Runs, claim: int) -> RunKey:
    key = runs.begin("demo")
    runs.connection.execute(
        "UPDATE flows.runs SET status = 'running', claim = %s, worker_id = %s",
        (claim, uuid.uuid4()),
    )
    return key


def memo_record(key: RunKey, claim: int) -> RunRecord:
    """Return a memo of each kind, whose value is the claim."""
    record = RunRecord(key.workflow_name_shard, str(key.run_id), claim)
    value = Payload(str(claim).encode(), None, None)
    record.steps["a"] = StepRecord("a", True, value, value, b"digest", None, 1, 0.1, 0.0)
    record.add_wait(WaitRecord("b", "event", "E", is_satisfied=True, payload=value))
    record.add_random(RandomRecord("c", "uint64", None, claim))
    return record


def write(connection: psycopg.Connection[Any], *records: RunRecord) -> writes.Sent:
    sent = writes.send(connection, "flows", writes.statements_for(records))
    sent.mark_stale()
    return sent


def test_memos_of_a_stale_claim_are_not_written(runs: Runs) -> None:
    key = claimed(runs, 2)
    stale = memo_record(key, 1)
    write(runs.connection, stale)
    assert runs.rows(MEMOS) == []
    assert stale.is_stale


@pytest.mark.parametrize("kind", ["steps", "waits", "randoms"])
def test_a_memo_of_a_claim_that_goes_stale_while_it_is_written_changes_nothing(
    runs: Runs, kind: str
) -> None:
    key = claimed(runs, 1)

    def only(claim: int) -> RunRecord:
        record, whole = RunRecord(key.workflow_name_shard, str(key.run_id), claim), (key, claim)
        setattr(record, kind, getattr(memo_record(*whole), kind))
        return record

    stale = only(1)

    def write_late() -> None:
        with psycopg.connect(runs.dsn) as late:
            write(late, stale)

    with psycopg.connect(runs.dsn) as owner:
        owner.execute("UPDATE flows.runs SET claim = 2")
        write(owner, only(2))
        thread = threading.Thread(target=write_late)
        thread.start()
        # It has seen the run with its own claim, and waits to see what becomes of the memo.
        wait_for_lock_wait(runs.dsn)
    thread.join()
    [(_, _, claim, value)] = runs.rows(MEMOS)
    assert (claim, value) == (2, 2)
    assert stale.is_stale == (kind == "randoms")


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(OutcomeKind.COMPLETED, output=Payload(b"1", None, None)),
        Outcome(OutcomeKind.FAILED, error_text="no"),
        Outcome(OutcomeKind.SLEEPING, wake_in_s=60.0),
        Outcome(OutcomeKind.RELEASED),
    ],
)
@pytest.mark.parametrize("is_taken", [True, False])
def test_an_outcome_does_not_change_a_run_that_was_released(
    runs: Runs, outcome: Outcome, is_taken: bool
) -> None:
    key = claimed(runs, 1)
    if is_taken:
        runs.connection.execute("UPDATE flows.runs SET claim = 2")
    else:
        # Its claim is still the last one: only the status tells that it is nobody's.
        runs.connection.execute("UPDATE flows.runs SET status = 'queued', worker_id = NULL")
        runs.client.cancel_run_tx(runs.connection, key)
    before = runs.rows("SELECT * FROM flows.runs")
    record = RunRecord(key.workflow_name_shard, str(key.run_id), 1)
    record.outcome = outcome
    assert write(runs.connection, record).stale == 1
    assert runs.rows("SELECT * FROM flows.runs") == before


def test_an_attempt_whose_run_was_released_and_cancelled_cannot_open_a_transaction(
    runs: Runs,
) -> None:
    registry = Registry()
    runs.connection.execute("CREATE TABLE written (n int)")
    went_on: list[int] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        [(worker_id,)] = runs.rows("SELECT worker_id FROM flows.runs")
        leases.release_worker(runs.connection, DBConfig(), worker_id)
        runs.client.cancel_run_tx(runs.connection, wf.run_key)
        wf.tx.execute("INSERT INTO written VALUES (1)")
        went_on.append(1)

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "cancelled"
    assert (went_on, runs.rows("SELECT n FROM written")) == ([], [])
