"""Locks: who must not wait for whom."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry
from flows.claims import claim_runs
from flows.database import connect
from tests.running import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs


@pytest.fixture
def impatient(runs: Runs) -> Iterator[psycopg.Connection[Any]]:
    """A connection in a transaction whose statements fail instead of waiting for a lock."""
    with psycopg.connect(runs.dsn) as connection:
        connection.execute("SET lock_timeout = '200ms'")
        connection.commit()
        yield connection
        connection.rollback()


def test_a_claim_that_is_not_committed_keeps_no_publisher_waiting(
    runs: Runs, impatient: psycopg.Connection[Any]
) -> None:
    key = runs.begin("anything", 1)
    with connect(runs.dsn) as claimer, claimer.transaction():
        claimed = claim_runs(claimer, "flows", [key.workflow_name_shard], 1, uuid.uuid4())
        assert len(claimed.runs) == 1
        runs.client.publish_event_tx(impatient, key, "event", 1)
        runs.client.get_run_status_tx(impatient, key)


def test_publishers_and_beginners_keep_no_claim_waiting(runs: Runs) -> None:
    with psycopg.connect(runs.dsn) as client:
        key = runs.begin("anything", 1)
        cancelled = runs.begin("anything", 2)
        runs.client.begin_tx(client, "anything", 3)
        runs.client.publish_event_tx(client, key, "event", 1)
        runs.client.cancel_run_tx(client, cancelled)
        with connect(runs.dsn) as claimer:
            claimer.execute("SET lock_timeout = '200ms'")
            claimed = claim_runs(claimer, "flows", [key.workflow_name_shard], 9, uuid.uuid4())
        assert [run.run_id for run in claimed.runs] == [str(key.run_id)]


def test_clients_do_not_wait_for_an_attempt_whose_transaction_is_open(
    runs: Runs, impatient: psycopg.Connection[Any]
) -> None:
    registry = Registry()
    gate = Gate()

    @registry.workflow("holder")
    def holder(wf: Context) -> None:
        wf.tx.execute("SELECT 1")
        gate.pass_through()

    key = runs.begin(holder)
    runs.start(registry)
    gate.wait_for_arrival()
    runs.client.publish_event_tx(impatient, key, "event", 1)
    assert runs.client.get_run_status_tx(impatient, key).status == "running"
    runs.client.cancel_run_tx(impatient, key)
    impatient.commit()
    assert runs.rows("SELECT count(*) FROM flows.cancellations") == [(1,)]
    gate.open()
    # Whichever comes first.
    wait_until(lambda: runs.status(key).status in {"cancelled", "completed"}, what="it is over")
