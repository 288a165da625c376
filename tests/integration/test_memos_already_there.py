"""Memos that are written as new, and are there already: the group they are in is written again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RetryPolicy, writes
from flows.committer import Committer
from flows.payloads import Payload
from flows.records import RunRecord, StepRecord
from tests.waiting import wait_for_lock_wait, wait_until

if TYPE_CHECKING:
    from flows import RunKey
    from tests.running import Runs

MEMOS = "SELECT step_key, status, claim, output_json::int FROM flows.steps ORDER BY 1"


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the committer has sent of memos of steps, in order."""
    sent: list[str] = []
    commit = writes.commit

    def watched(connection: Any, schema: str, statements: Any, looks: Any) -> Any:
        all_of_them = list(statements)
        sent.extend(one.query for one in all_of_them if one.query.endswith("_steps"))
        return commit(connection, schema, all_of_them, looks)

    monkeypatch.setattr(writes, "commit", watched)
    return sent


def record_of(key: RunKey, value: int, claim: int, *, is_first: bool) -> RunRecord:
    record = RunRecord(key.workflow_name_shard, str(key.run_id), claim, is_first=is_first)
    memo = Payload(str(value).encode(), None, None)
    record.steps["a"] = StepRecord("a", True, memo, memo, b"digest", None, 1, 0.1, 0.0)
    return record


def test_a_group_whose_commit_nobody_heard_of_is_written_again(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    queries: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Registry()
    commit = writes.commit
    unheard: list[int] = []

    @registry.workflow("echo", concurrency=1)
    def echo(wf: Context, value: int) -> int:
        return wf.execute("a", lambda: value)

    def lose_the_first(connection: Any, schema: str, statements: Any, looks: Any) -> Any:
        sent = commit(connection, schema, statements, looks)
        if not unheard:
            unheard.append(1)
            connection.close()
            raise psycopg.OperationalError("the connection is lost")
        return sent

    monkeypatch.setattr(writes, "commit", lose_the_first)
    key = runs.begin(echo, 7)
    with caplog.at_level(logging.ERROR, "flows"):
        running = runs.start(registry)
        runs.wait_for(key, "completed")
        assert runs.output(key) == 7
        following = runs.begin(echo, 8)
        runs.wait_for(following, "completed")
        assert runs.output(following) == 8
        running.stop()
    assert queries == ["insert_steps", "insert_steps", "write_steps", "insert_steps"]
    assert runs.rows(MEMOS) == [("a", "completed", 1, 7), ("a", "completed", 1, 8)]
    assert not caplog.records


def test_a_key_that_is_called_again_after_its_step_has_failed_keeps_what_it_returned(
    runs: Runs, queries: list[str]
) -> None:
    registry = Registry()
    calls: list[int] = []

    def fail_once() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not yet")
        return 5

    @registry.workflow("stubborn")
    def stubborn(wf: Context) -> int:
        once = RetryPolicy(max_retries=0)
        with pytest.raises(RuntimeError):
            wf.execute("a", fail_once, retry=once)
        wf.random_uint64("commits what came before")
        return wf.execute("a", fail_once, retry=once)

    key = runs.begin(stubborn)
    runs.start(registry)
    runs.wait_for(key, "completed")
    assert runs.output(key) == 5
    assert queries == ["write_steps", "write_steps"]
    assert runs.rows(MEMOS) == [("a", "completed", 1, 5)]


def test_a_new_memo_of_a_claim_that_goes_stale_while_it_is_written_changes_nothing(
    runs: Runs, queries: list[str]
) -> None:
    key = runs.begin("demo")
    runs.connection.execute("UPDATE flows.runs SET status = 'running', claim = 1")
    failures: list[BaseException] = []
    log = logging.getLogger("flows")
    committer = Committer(runs.dsn, "flows", log, lambda _: None, failures.append, None)
    committer.start()
    try:
        with psycopg.connect(runs.dsn) as owner:
            owner.execute("UPDATE flows.runs SET claim = 2")
            second = record_of(key, 2, claim=2, is_first=False)
            writes.send(owner, "flows", writes.statements_for([second]))
            first = record_of(key, 1, claim=1, is_first=True)
            committer.submit(first)
            # It has seen the run with its own claim, and waits to see what becomes of the memo.
            wait_for_lock_wait(runs.dsn)
        wait_until(lambda: committer.backlog == 0, what="the group is written")
    finally:
        assert committer.stop(10)
    assert queries == ["insert_steps", "write_steps"]
    assert runs.rows(MEMOS) == [("a", "completed", 2, 2)]
    assert first.refused is None
    assert failures == []
