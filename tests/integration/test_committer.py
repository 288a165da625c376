"""The committer: groups, what splits them, and what must not hold them up."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from flows import Codec, Context, Registry, register_codec, writes
from flows.committer import MAX_GROUP, Committer
from tests.crash.holds import Hold
from tests.waiting import wait_until

if TYPE_CHECKING:
    from flows import RunKey, Workflow
    from tests.running import Runs

BAD = 13


class LyingCodec(Codec):
    """Says JSON, and for one value writes what is none; for another, what is not even bytes."""

    name = "lying"
    storage = "jsonb"

    def encode(self, value: Any) -> bytes:
        text = json.dumps(value)
        lie: Any = {"text": text, "broken": b'"broken'}.get(value)
        return lie or text.encode()

    def decode(self, data: Any, type: Any) -> Any:  # noqa: A002  as in the base class
        return data if isinstance(data, str) or data == b'"broken' else json.loads(data)


register_codec(LyingCodec())


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each transaction completed, in order."""
    sizes: list[int] = []
    commit = writes.commit

    def watched(connection: Any, schema: str, statements: Any, looks: Any) -> Any:
        all_of_them = list(statements)
        completed = (one.outcomes for one in all_of_them if one.query.startswith("complete_run"))
        sizes.append(sum(completed))
        return commit(connection, schema, all_of_them, looks)

    monkeypatch.setattr(writes, "commit", watched)
    return sizes


def gather(runs: Runs, workflow: Workflow[Any, Any], inputs: list[Any]) -> list[RunKey]:
    """Have runs executed while the committer is held, so that it takes them all together."""
    registry = Registry()
    registry.add(workflow)
    with Hold(runs.dsn, "NEW.status = 'completed'") as hold:
        first = runs.begin(workflow, "first")
        worker = runs.start(registry).worker
        hold.wait_for_arrival()
        with runs.connection.transaction():
            keys = runs.client.begin_many_tx(runs.connection, workflow, inputs)
        services = worker._services
        assert services is not None
        committer = services.engine.committer
        wait_until(lambda: committer.backlog == len(inputs) + 1, what="all are executed")
    assert runs.wait_for(first, "completed").attempts == 0
    return keys


def test_outcomes_of_many_runs_are_committed_together(runs: Runs, groups: list[int]) -> None:
    registry = Registry()

    @registry.workflow("echo", concurrency=4)
    def echo(wf: Context, value: Any) -> Any:
        return wf.execute("step/v1", lambda: value)

    keys = gather(runs, echo, list(range(100)))
    for expected, key in enumerate(keys):
        runs.wait_for(key, "completed")
        assert runs.output(key) == expected
    assert groups == [1, 100]
    assert runs.rows("SELECT count(*) FROM flows.steps WHERE status = 'completed'") == [(101,)]


def test_a_group_is_bounded(runs: Runs, groups: list[int]) -> None:
    registry = Registry()

    @registry.workflow("echo", concurrency=4)
    def echo(wf: Context, value: Any) -> Any:
        return value

    keys = gather(runs, echo, list(range(MAX_GROUP + 1)))
    for key in keys:
        runs.wait_for(key, "completed")
    assert groups == [1, MAX_GROUP, 1]


def test_a_group_is_bounded_in_bytes(
    runs: Runs, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()

    @registry.workflow("echo", concurrency=4)
    def echo(wf: Context, value: Any) -> Any:
        return value

    monkeypatch.setattr("flows.committer.MAX_GROUP_BYTES", 1000)
    keys = gather(runs, echo, ["x" * 398] * 5 + ["y" * 2000])
    for key in keys:
        runs.wait_for(key, "completed")
    assert sorted(groups) == [1, 1, 1, 2, 2]


def test_attempts_wait_while_too_many_bytes_are_to_be_committed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    executed: list[str] = []
    waiting: list[None] = []
    wait_for_room = Committer.wait_for_room

    def watched(committer: Committer) -> None:
        waiting.append(None)
        wait_for_room(committer)
        waiting.pop()

    monkeypatch.setattr("flows.committer.MAX_WAITING_BYTES", 1000)
    monkeypatch.setattr(Committer, "wait_for_room", watched)

    @registry.workflow("echo", concurrency=4)
    def echo(wf: Context, value: str) -> str:
        executed.append(value)
        return value

    with Hold(runs.dsn, "NEW.status = 'completed'") as hold:
        worker = runs.start(registry).worker
        runs.client.begin_many_tx(runs.connection, echo, ["x" * 998] * 20)
        hold.wait_for_arrival()
        wait_until(lambda: len(waiting) >= 3, what="all executors but the first one's wait")
        services = worker._services
        assert services is not None
        assert services.engine.committer.is_full
        assert len(executed) <= 5
    wait_until_ended(runs)
    assert len(executed) == 20
    assert runs.rows("SELECT DISTINCT status FROM flows.runs") == [("completed",)]


@pytest.mark.parametrize("bad", ["broken", "text"])
@pytest.mark.parametrize("where", ["output", "step"])
def test_a_record_that_is_refused_is_singled_out_of_its_group(
    runs: Runs, groups: list[int], caplog: pytest.LogCaptureFixture, *, where: str, bad: str
) -> None:
    registry = Registry()

    @registry.workflow("echo", concurrency=4, codec=LyingCodec())
    def echo(wf: Context, number: Any) -> Any:
        value = bad if number == BAD else number
        return wf.execute("step/v1", lambda: value) and "done" if where == "step" else value

    with caplog.at_level(logging.ERROR):
        keys = gather(runs, echo, list(range(40)))
        wait_until_ended(runs)
    statuses = [runs.status(key) for key in keys]
    refused = statuses.pop(BAD)
    assert {(status.status, status.attempts) for status in statuses} == {("completed", 0)}
    assert (refused.status, refused.attempts) == ("failed", 1)
    assert ("TypeError" if bad == "text" else "InvalidTextRepresentation") in str(refused.error)
    assert sum("cannot be recorded" in record.message for record in caplog.records) == 1
    # The others were not sent one by one: what holds the refused one is halved, and no more.
    assert sum(groups) >= 40
    assert len(groups) < 20


@pytest.mark.parametrize("bad", ["broken", "text"])
@pytest.mark.parametrize("where", ["output", "step"])
def test_a_record_that_is_refused_in_a_transaction_fails_its_run(
    runs: Runs, *, where: str, bad: str
) -> None:
    registry = Registry()
    runs.connection.execute("CREATE TABLE ledger (entry int)")

    @registry.workflow("echo", codec=LyingCodec())
    def echo(wf: Context, number: Any) -> Any:
        value = bad if number == BAD else number
        wf.tx.execute("INSERT INTO ledger VALUES (%s)", (number,))
        return wf.execute("step/v1", lambda: value) and "done" if where == "step" else value

    refused, other = runs.begin(echo, BAD), runs.begin(echo, BAD + 1)
    runs.start(registry)
    assert runs.wait_for(other, "completed").attempts == 0
    assert runs.wait_for(refused, "failed").attempts == 1
    assert ("TypeError" if bad == "text" else "InvalidTextRepresentation") in runs.error(refused)
    assert runs.rows("SELECT entry FROM ledger") == [(BAD + 1,)]


def wait_until_ended(runs: Runs) -> None:
    statement = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM flows.runs WHERE finished_at IS NULL)"
    wait_until(lambda: runs.rows(statement), what="all runs have ended")
