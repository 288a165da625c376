"""Memos that are taken back while the committer waits for more."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import psycopg

from flows import Client
from flows.committer import Committer
from flows.payloads import Payload
from flows.records import Outcome, OutcomeKind, RandomRecord, RunRecord
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    import pytest


def test_a_committer_whose_only_record_is_withdrawn_goes_on(
    flows_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lingers = threading.Event()
    withdrawn = threading.Event()

    def linger(self: Committer) -> None:
        lingers.set()
        self._changed.wait_for(withdrawn.is_set, timeout=DEADLINE_S)

    monkeypatch.setattr(Committer, "_linger", linger)
    failures: list[BaseException] = []
    committer = Committer(
        flows_dsn, "flows", logging.getLogger("flows"), lambda _: None, failures.append, None
    )
    with psycopg.connect(flows_dsn, autocommit=True) as connection:
        key = Client().begin_tx(connection, "noop")
        connection.execute("UPDATE flows.runs SET status = 'running', claim = 1")
        record = RunRecord(key.workflow_name_shard, str(key.run_id), 1)
        committer.start()
        try:
            with committer.lock:
                record.add_random(RandomRecord("r", "uint64", None, 1))
                committer.remember(record)
            assert lingers.wait(timeout=DEADLINE_S)
            assert committer.withdraw(record).randoms
            with committer.lock:
                withdrawn.set()
                committer._changed.notify()
            wait_until(
                lambda: committer._changed._waiters or not committer._thread.is_alive(),  # type: ignore[attr-defined]
                what="the committer has seen that nothing is left",
            )
            output = Payload(b"1", None, None)
            committer.submit(record, Outcome(OutcomeKind.COMPLETED, output=output))
            wait_until(
                lambda: Client().get_run_status_tx(connection, key).status == "completed",
                what="the outcome is committed",
            )
        finally:
            assert committer.stop(10)
    assert failures == []
