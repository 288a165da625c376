"""A connection is cut at a statement, before the server got it or before its answer came back."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry
from tests.crash.holds import Hold
from tests.crash.proxy import Proxy
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.registry import CommitMode

BEFORE_AND_AFTER = pytest.mark.parametrize("is_sent", [False, True], ids=["before", "after"])

CLAIM = b"\0flows_claim_runs\0"
STEPS = b'INTO "flows".steps'
FENCE = b"EXECUTE flows_fence_run"
COMMIT = b"COMMIT"


@pytest.fixture
def proxy(flows_dsn: str) -> Iterator[Proxy]:
    with Proxy(flows_dsn) as proxy:
        yield proxy


@pytest.fixture
def runs(proxy: Proxy) -> Iterator[Runs]:
    """Runs whose workers connect through the proxy."""
    runs = Runs(proxy.dsn)
    runs.connection.execute("CREATE TABLE ledger (run_id uuid, entry text)")
    yield runs
    runs.close()


def cut(proxy: Proxy, session: str, *triggers: bytes, is_sent: bool, answer: bytes) -> Any:
    if is_sent:
        return proxy.cut_after(session, *triggers, answer=answer)
    return proxy.cut_before(session, *triggers)


def bookkeeping(commit: CommitMode, attempts: list[str], executed: list[str]) -> Registry:
    """Return a registry with a workflow that books two entries and sleeps in between."""
    registry = Registry()

    def do(wf: Context, entry: str) -> str:
        executed.append(entry)
        wf.tx.execute("INSERT INTO ledger VALUES (%s, %s)", (wf.run_id, entry))
        return entry

    @registry.workflow("booking", commit=commit)
    def booking(wf: Context) -> list[str]:
        attempts.append("booking")
        results = [wf.execute("one", lambda: do(wf, "one"))]
        wf.sleep("nap", timedelta(milliseconds=1))
        results += [wf.execute("two", lambda: do(wf, "two"))]
        return results

    return registry


def check_booked_once(runs: Runs, key: Any) -> None:
    assert runs.wait_for(key, "completed").attempts == 0
    assert runs.output(key) == ["one", "two"]
    assert runs.rows("SELECT entry FROM ledger ORDER BY entry") == [("one",), ("two",)]
    assert runs.rows("SELECT step_key FROM flows.steps ORDER BY 1") == [("one",), ("two",)]


@BEFORE_AND_AFTER
@pytest.mark.parametrize("commit", ["attempt", "step"])
@pytest.mark.parametrize("number", [1, 2])
def test_cut_at_a_commit_of_an_attempts_transaction(
    runs: Runs, proxy: Proxy, *, commit: CommitMode, number: int, is_sent: bool
) -> None:
    attempts: list[str] = []
    executed: list[str] = []
    registry = bookkeeping(commit, attempts, executed)
    triggers = [FENCE, COMMIT] * number
    severed = cut(proxy, "flows transaction", *triggers, is_sent=is_sent, answer=b"COMMIT\0")
    key = runs.begin("booking")
    runs.start(registry)
    severed.wait()
    check_booked_once(runs, key)
    # A step is done again if the server never got its commit, and only then.
    assert len(executed) == (2 if is_sent else 3)


@BEFORE_AND_AFTER
def test_cut_at_a_commit_of_the_committer(runs: Runs, proxy: Proxy, *, is_sent: bool) -> None:
    registry = Registry()
    executed: list[int] = []

    def count(number: int) -> int:
        executed.append(number)
        return number

    @registry.workflow("number", concurrency=4)
    def number(wf: Context, number: int) -> int:
        return wf.execute("step", count, number)

    with runs.connection.transaction():
        keys = runs.client.begin_many_tx(runs.connection, number, range(40))
    severed = cut(
        proxy, "flows committer", STEPS, COMMIT, COMMIT, is_sent=is_sent, answer=b"COMMIT\0"
    )
    runs.start(registry)
    severed.wait()
    for expected, key in enumerate(keys):
        assert runs.wait_for(key, "completed").attempts == 0
        assert runs.output(key) == expected
    assert sorted(executed) == list(range(40))
    assert runs.rows("SELECT DISTINCT claim FROM flows.runs") == [(1,)]


@BEFORE_AND_AFTER
def test_cut_at_a_claim(runs: Runs, proxy: Proxy, *, is_sent: bool) -> None:
    registry = Registry()

    @registry.workflow("number")
    def number(wf: Context, number: int) -> int:
        return number

    key = runs.begin(number, 7)
    severed = cut(proxy, "flows dispatcher", CLAIM, is_sent=is_sent, answer=b"SELECT 1\0")
    runs.start(registry)
    severed.wait()
    assert runs.wait_for(key, "completed").attempts == 0
    assert runs.output(key) == 7


@BEFORE_AND_AFTER
def test_cut_at_the_commit_of_a_random_value(runs: Runs, proxy: Proxy, *, is_sent: bool) -> None:
    registry = Registry()
    seen: list[int] = []

    @registry.workflow("dice")
    def dice(wf: Context) -> str:
        seen.append(wf.random_uint64("throw"))
        return str(seen[-1])

    key = runs.begin(dice)
    severed = cut(
        proxy,
        "flows committer",
        b'INTO "flows".random',
        COMMIT,
        is_sent=is_sent,
        answer=b"COMMIT\0",
    )
    runs.start(registry)
    severed.wait()
    assert runs.wait_for(key, "completed").attempts == 0
    assert {str(number) for number in seen} == {runs.output(key)}


@BEFORE_AND_AFTER
def test_cut_when_a_transaction_is_fenced(runs: Runs, proxy: Proxy, *, is_sent: bool) -> None:
    attempts: list[str] = []
    registry = bookkeeping("attempt", attempts, [])
    severed = cut(proxy, "flows transaction", FENCE, is_sent=is_sent, answer=b"SELECT 1\0")
    key = runs.begin("booking")
    runs.start(registry)
    severed.wait()
    check_booked_once(runs, key)


def terminate(runs: Runs, session: str) -> None:
    """Terminate a session of the worker and wait until it is gone."""
    ((pid,),) = runs.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        " AND datname = current_database()",
        session,
    )
    assert runs.rows("SELECT pg_terminate_backend(%s::int, 5000)", pid) == [(True,)]


def wait_until_back(runs: Runs, session: str) -> None:
    """Wait until a session of that name is connected and has nothing to do."""
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND state = 'idle'"
        # Of a long statement only the beginning is shown.
        " AND (query LIKE '%%LIMIT%%' OR query LIKE 'WITH due%%') AND datname = current_database()"
    )
    wait_until(lambda: runs.rows(statement, session), what=f"{session} is back")


def test_cut_while_it_listens(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("number")
    def number(wf: Context, number: int) -> int:
        return number

    forever = timedelta(hours=1)
    runs.start(registry, poll_interval=forever, max_poll_interval=forever)
    terminate(runs, "flows dispatcher")
    first = runs.begin(number, 7)
    assert runs.wait_for(first, "completed").attempts == 0
    second = runs.begin(number, 8)
    assert runs.wait_for(second, "completed").attempts == 0


def test_cut_while_runs_are_executed_and_outcomes_are_committed(runs: Runs) -> None:
    registry = Registry()
    gate = Gate()
    returned = threading.Event()

    @registry.workflow("number", concurrency=3)
    def number(wf: Context, role: str) -> str:
        if role == "executed":
            gate.pass_through()
        if role == "next":
            returned.set()
        return role

    with Hold(runs.dsn, "NEW.status = 'completed'") as hold:
        keys = [runs.begin(number, "executed"), runs.begin(number, "committed")]
        runs.start(registry)
        gate.wait_for_arrival()
        hold.wait_for_arrival()
        keys.append(runs.begin(number, "next"))
        assert returned.wait(DEADLINE_S)
        terminate(runs, "flows dispatcher")
        wait_until_back(runs, "flows dispatcher")
        gate.open()
    for key in keys:
        assert runs.wait_for(key, "completed").attempts == 0
    # None was taken for a run that was claimed without the worker's knowledge.
    assert runs.rows("SELECT DISTINCT claim FROM flows.runs") == [(1,)]
