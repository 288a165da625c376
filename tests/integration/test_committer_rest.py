"""Small groups in a process that uses a core up: how long they wait, and what ends it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import TYPE_CHECKING

import psycopg
import pytest

from flows import Client, Context, Registry
from flows.committer import SMALL_GROUP, Committer
from flows.lookahead import LookAhead
from flows.pace import Load
from flows.payloads import Payload
from flows.records import Outcome, OutcomeKind, RunRecord
from tests.running import Gate
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

FOR_EVER_S = 3600.0


@pytest.fixture(autouse=True)
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "is_full", lambda *_: True)
    monkeypatch.setattr("flows.committer.REST_S", FOR_EVER_S)


class Ended:
    """Runs whose attempt has ended, and the committer that is to record it."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.failures: list[BaseException] = []
        self.committer = Committer(
            dsn, "flows", logging.getLogger("flows"), lambda _: None, self.failures.append, None
        )
        self.committer.start()

    def submit(self, count: int) -> list[RunRecord]:
        """Submit the outcomes of so many new runs."""
        keys = [Client().begin_tx(self.connection, "noop") for _ in range(count)]
        self.connection.execute("UPDATE flows.runs SET status = 'running', claim = 1")
        records = [RunRecord(key.workflow_name_shard, str(key.run_id), 1) for key in keys]
        for record in records:
            outcome = Outcome(OutcomeKind.COMPLETED, output=Payload(b"1", None, None))
            self.committer.submit(record, outcome)
        return records

    def wait_until_resting(self) -> None:
        """Wait until the committer waits for others."""
        wait_until(
            lambda: self.committer._is_resting and bool(self.committer._changed._waiters),  # type: ignore[attr-defined]
            what="the committer rests",
        )

    def wait_until_committed(self) -> None:
        """Wait until nothing is left to be committed."""
        wait_until(lambda: self.committer.backlog == 0, what="all is committed")
        assert self.left() == 0

    def left(self) -> int:
        """How many runs are not completed."""
        row = self.connection.execute(
            "SELECT count(*) FROM flows.runs WHERE status <> 'completed'"
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def ended(flows_dsn: str) -> Iterator[Ended]:
    ended = Ended(flows_dsn)
    yield ended
    assert ended.committer.stop(10)
    assert ended.failures == []
    ended.connection.close()


def test_a_small_group_waits_until_it_is_no_longer_small(ended: Ended) -> None:
    ended.submit(1)
    ended.wait_until_resting()
    ended.submit(SMALL_GROUP - 2)
    assert ended.left() == SMALL_GROUP - 1
    assert ended.committer._is_resting
    ended.submit(1)
    ended.wait_until_committed()


def test_whoever_needs_a_memo_committed_does_not_wait(ended: Ended) -> None:
    (record,) = ended.submit(1)
    ended.wait_until_resting()
    assert ended.committer.settle(record, DEADLINE_S)
    ended.wait_until_committed()


def test_whoever_needs_what_is_on_its_way_leaves_the_others_waiting(
    ended: Ended, flows_dsn: str
) -> None:
    first, second = ended.submit(2)
    ended.wait_until_resting()
    taken = ended.committer.withdraw(second)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(flows_dsn) as holder:
        holder.execute("SELECT FROM flows.runs FOR UPDATE")
        ended.committer.hurry()
        wait_until(lambda: first in ended.committer._in_flight, what="it is on its way")
        ended.committer.submit(second, taken.outcome)
        settled = pool.submit(ended.committer.settle, first, DEADLINE_S)
        waiting = ended.committer._settled._waiters  # type: ignore[attr-defined]
        wait_until(lambda: bool(waiting), what="somebody waits for it")
        holder.rollback()
        assert settled.result()
    ended.wait_until_resting()
    assert ended.left() == 1


def test_a_committer_that_is_to_hurry_does_not_wait(ended: Ended) -> None:
    ended.submit(1)
    ended.wait_until_resting()
    ended.committer.hurry()
    ended.wait_until_committed()
    # It is for what was queued, and not for what comes later.
    ended.submit(1)
    ended.wait_until_resting()


def test_to_hurry_with_nothing_leaves_the_next_ones_alone(ended: Ended) -> None:
    ended.committer.hurry()
    ended.submit(1)
    ended.wait_until_resting()


def test_what_waits_is_committed_when_the_committer_ends(ended: Ended) -> None:
    ended.submit(1)
    ended.wait_until_resting()
    assert ended.committer.stop(DEADLINE_S)
    assert ended.left() == 0


def test_a_group_whose_records_are_withdrawn_leaves_the_committer_waiting(ended: Ended) -> None:
    (record,) = ended.submit(1)
    ended.wait_until_resting()
    ended.committer.withdraw(record)
    with ended.committer.lock:
        ended.committer._changed.notify()
    wait_until(lambda: ended.committer._is_idle, what="the committer waits for a first record")
    ended.submit(SMALL_GROUP)
    wait_until(lambda: ended.left() == 1, what="the others are committed")


def test_the_wait_ends_by_itself(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.committer.REST_S", 0.01)
    ended.submit(1)
    ended.wait_until_committed()


def test_the_wait_ends_where_those_that_are_executed_only_wait(
    ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = chain([True], repeat(False))
    monkeypatch.setattr(Load, "is_full", lambda *_: next(looks))
    ended.submit(1)
    ended.wait_until_committed()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_runs_wait_for_those_that_come_after_them_and_the_last_one_for_nobody(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    registry = Registry()
    gate = Gate()
    # One executor has the next run at hand.
    monkeypatch.setattr(LookAhead, "ahead", 5)

    @registry.workflow("echo", concurrency=concurrency)
    def echo(wf: Context, passes: bool) -> int:
        if not passes:
            gate.pass_through()
        return 1

    done, held = runs.begin(echo, True), runs.begin(echo, False)
    worker = runs.start(registry).worker
    gate.wait_for_arrival()
    services = worker._services
    assert services is not None
    committer = services.engine.committer
    wait_until(lambda: committer._is_resting, what="the committer rests")
    assert runs.status(done).status == "running"
    gate.open()
    assert runs.wait_for(done, "completed")
    assert runs.wait_for(held, "completed")
