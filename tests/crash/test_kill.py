"""A worker process is killed at every stage of a run: the next one ends it, and no harm shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.app import registry
from tests.crash.holds import Hold
from tests.crash.proxy import Proxy
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.harness import Battlefield

BOOKED = ["booked", "booked-by-step"]


@pytest.fixture
def proxy(battlefield: Battlefield) -> Iterator[Proxy]:
    with Proxy(battlefield.dsn) as proxy:
        yield proxy


def test_killed_with_a_run_claimed_and_not_begun(battlefield: Battlefield, proxy: Proxy) -> None:
    key = battlefield.runs.begin(registry.get("plain"))
    # The claim is committed; the worker waits for the answer that tells what it has claimed.
    claimed = proxy.keep_answer(
        "flows dispatcher", b"claim = r.claim + 1", b"plain_0", answer=b"SELECT 1\0"
    )
    worker = battlefield.start(dsn=proxy.dsn)
    claimed.wait()
    assert battlefield.column("status") == ["running"]
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    assert battlefield.executed() == {"first": 1, "second": 1}
    assert battlefield.column("attempts") == [0]
    assert battlefield.column("claim") == [2]


def test_killed_in_a_step(battlefield: Battlefield) -> None:
    key = battlefield.runs.begin(registry.get("plain"))
    worker = battlefield.start("first")
    worker.expect("first")
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    assert battlefield.runs.output(key) == ["first", "second"]
    assert battlefield.executed() == {"first": 2, "second": 1}
    assert battlefield.column("attempts") == [0]


def test_killed_after_a_memo_was_committed(battlefield: Battlefield) -> None:
    key = battlefield.runs.begin(registry.get("plain"))
    worker = battlefield.start("second")
    worker.expect("second")
    memo = "SELECT 1 FROM flows.steps WHERE step_key = 'first' AND status = 'completed'"
    wait_until(lambda: battlefield.runs.rows(memo), what="the memo is committed")
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    assert battlefield.runs.output(key) == ["first", "second"]
    assert battlefield.executed() == {"first": 1, "second": 2}
    assert battlefield.column("attempts") == [0]


@pytest.mark.parametrize("workflow", BOOKED)
def test_killed_with_business_rows_not_committed(battlefield: Battlefield, workflow: str) -> None:
    key = battlefield.runs.begin(registry.get(workflow))
    worker = battlefield.start("third")
    worker.expect("third")
    # What stands outside the transaction: nothing, or the step whose commit is its own.
    is_by_step = workflow == "booked-by-step"
    assert battlefield.ledger() == (["second"] if is_by_step else [])
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    assert battlefield.runs.output(key) == ["first", "second", "third"]
    assert battlefield.ledger() == ["second", "third"]
    assert battlefield.executed()["third"] == 2
    assert battlefield.executed()["second"] == (1 if is_by_step else 2)
    assert battlefield.column("attempts") == [0]


@pytest.mark.parametrize("workflow", ["plain", *BOOKED])
def test_killed_in_the_statement_that_records_the_outcome(
    battlefield: Battlefield, workflow: str
) -> None:
    key = battlefield.runs.begin(registry.get(workflow))
    with Hold(battlefield.dsn, "NEW.status = 'completed'") as hold:
        worker = battlefield.start()
        hold.wait_for_arrival()
        worker.kill()
        # The backend notices only when it has something to say, and finds nobody to say it to.
    battlefield.wait_until_disconnected()
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    check_booked_once(battlefield, workflow)


@pytest.mark.parametrize(
    ("workflow", "session"),
    [
        ("plain", "flows committer"),
        ("booked", "flows transaction"),
        ("booked-by-step", "flows committer"),
    ],
)
def test_killed_when_the_outcome_was_committed_and_not_answered(
    battlefield: Battlefield, proxy: Proxy, workflow: str, session: str
) -> None:
    battlefield.runs.begin(registry.get(workflow))
    committed = proxy.keep_answer(
        session, b"SET status = 'completed'", b"COMMIT", answer=b"COMMIT\0"
    )
    worker = battlefield.start(dsn=proxy.dsn)
    committed.wait()
    battlefield.avenge(worker).expect("ready")
    check_nothing_is_left_to_do(battlefield)
    check_booked_once(battlefield, workflow)
    assert set(battlefield.executed().values()) == {1}


def test_killed_when_the_commit_of_a_step_was_sent_and_not_answered(
    battlefield: Battlefield, proxy: Proxy
) -> None:
    key = battlefield.runs.begin(registry.get("booked-by-step"))
    committed = proxy.keep_answer(
        "flows transaction", b'INTO "flows".steps', b"COMMIT", answer=b"COMMIT\0"
    )
    worker = battlefield.start(dsn=proxy.dsn)
    committed.wait()
    assert battlefield.ledger() == ["second"]
    battlefield.avenge(worker)
    battlefield.runs.wait_for(key, "completed")
    check_booked_once(battlefield, "booked-by-step")
    assert battlefield.executed() == {"first": 1, "second": 1, "third": 1}


def check_nothing_is_left_to_do(battlefield: Battlefield) -> None:
    """Assert that a run begun now, which the other one's worker executes after it, is the last."""
    key = battlefield.runs.begin(registry.get("napping"))
    battlefield.runs.wait_for(key, "sleeping")
    battlefield.runs.client.cancel_run_tx(battlefield.runs.connection, key)
    battlefield.runs.connection.execute("DELETE FROM flows.runs WHERE status = 'cancelled'")


def check_booked_once(battlefield: Battlefield, workflow: str) -> None:
    """Assert that nothing is missing and nothing is there twice."""
    booked = workflow != "plain"
    assert battlefield.ledger() == (["second", "third"] if booked else [])
    assert battlefield.column("attempts") == [0]
    assert set(battlefield.column("status")) == {"completed"}
