"""What interrupts an attempt is told apart from what fails it: the run is done again, uncounted."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, RunKey
from flows.committer import Committer
from tests.running import Gate, Runs
from tests.waiting import DEADLINE_S, wait_for_lock_wait, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def runs(runs: Runs) -> Runs:
    runs.connection.execute("CREATE TABLE ledger (id int PRIMARY KEY, amount int NOT NULL)")
    runs.connection.execute("INSERT INTO ledger VALUES (1, 0), (2, 0)")
    return runs


def add(wf: Context, account: int, amount: int = 1) -> int:
    """Add to an account, and return the backend's pid."""
    row = wf.tx.execute(
        "UPDATE ledger SET amount = amount + %s WHERE id = %s RETURNING pg_backend_pid()",
        (amount, account),
    ).fetchone()
    assert row is not None
    return int(row[0])


def terminate(runs: Runs, pid: int) -> None:
    assert runs.rows("SELECT pg_terminate_backend(%s::int, 5000)", pid) == [(True,)]


def amounts(runs: Runs) -> list[int]:
    return [amount for (amount,) in runs.rows("SELECT amount FROM ledger ORDER BY id")]


def check_done_once(runs: Runs, key: RunKey, *, account: int = 1) -> None:
    status = runs.status(key)
    assert (status.status, status.attempts) == ("completed", 0), status.error
    assert amounts(runs)[account - 1] == 1


@pytest.mark.parametrize("commit", ["attempt", "step"])
@pytest.mark.parametrize(
    "moment",
    ["within-a-step", "at-a-steps-end", "between-steps", "in-the-workflow", "at-the-end"],
)
def test_a_terminated_transaction_interrupts(runs: Runs, *, moment: str, commit: Any) -> None:
    registry = Registry()
    moments: list[str] = []

    @registry.workflow("adder", commit=commit)
    def adder(wf: Context) -> None:
        def reach(now: str, pid: int) -> None:
            moments.append(now)
            if moments.count(moment) == 1 and now == moment:
                terminate(runs, pid)

        def step() -> None:
            pid = add(wf, 1)
            reach("within-a-step", pid)
            wf.tx.execute("SELECT 1")
            reach("at-a-steps-end", pid)

        def read() -> int:
            return int(wf.tx.execute("SELECT amount FROM ledger WHERE id = 1").fetchone()[0])  # type: ignore[index]

        pid = wf.tx.execute("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[index]
        wf.execute("add", step)
        pid = wf.tx.execute("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[index]
        reach("between-steps", pid)
        assert wf.execute("read", read) == 1
        pid = wf.tx.execute("SELECT pg_backend_pid()").fetchone()[0]  # type: ignore[index]
        reach("in-the-workflow", pid)
        wf.tx.execute("SELECT 1")
        reach("at-the-end", pid)

    key = runs.execute(registry, adder)
    check_done_once(runs, key)
    assert moments.count(moment) == 2 or (moment.endswith("step") and commit == "step")


@pytest.mark.parametrize("then", ["returns", "sleeps", "raises"])
def test_a_lost_transaction_interrupts_whatever_the_workflow_makes_of_it(
    runs: Runs, then: str
) -> None:
    registry = Registry()
    attempts: list[int] = []

    @registry.workflow("careless")
    def careless(wf: Context) -> str:
        attempts.append(1)
        pid = add(wf, 1)
        if len(attempts) == 1:
            terminate(runs, pid)
        try:
            wf.tx.execute("SELECT 1")
        except psycopg.Error as error:
            if then == "raises":
                raise ValueError("what now") from error
            if then == "sleeps":
                wf.sleep("nap/v1", timedelta(milliseconds=1))
            return "never mind"
        return "well"

    key = runs.execute(registry, careless)
    check_done_once(runs, key)
    assert runs.output(key) == "well"
    assert len(attempts) == 2


def idle_timeout(runs: Runs, wf: Context) -> None:
    """Be idle in the transaction for longer than the server allows."""
    pid = add(wf, 2, 0)
    wf.tx.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
    gone = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
    wait_until(lambda: runs.rows(gone, pid), what="the session is gone")
    wf.tx.execute("SELECT 1")


def serialization_failure(runs: Runs, wf: Context) -> None:
    """Change a row that was changed since the transaction looked."""
    wf.tx.execute("SELECT amount FROM ledger WHERE id = 2")
    runs.connection.execute("UPDATE ledger SET amount = amount WHERE id = 2")
    wf.tx.execute("UPDATE ledger SET amount = amount WHERE id = 2")


def deadlock(runs: Runs, wf: Context) -> None:
    """Lock two rows crosswise with another session."""
    statement = "UPDATE ledger SET amount = amount WHERE id = %s"
    with psycopg.connect(runs.dsn) as other:
        # This one's is long, so that the attempt's session is the one to notice, and to give in.
        other.execute("SET deadlock_timeout = '1h'")
        other.execute(statement, (2,))
        wf.tx.execute("SET LOCAL deadlock_timeout = '10ms'")
        wf.tx.execute(statement, (1,))

        def cross() -> None:
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                other.execute(statement, (1,))

        crossing = threading.Thread(target=cross)
        crossing.start()
        wait_for_lock_wait(runs.dsn)
        try:
            wf.tx.execute(statement, (2,))
        finally:
            # The engine has not rolled back yet, so the other one still waits.
            runs.connection.execute("SELECT pg_cancel_backend(%s)", (other.info.backend_pid,))
            crossing.join()


@pytest.mark.parametrize("is_step", [True, False], ids=["step", "workflow"])
@pytest.mark.parametrize("trouble", [idle_timeout, serialization_failure, deadlock])
def test_trouble_that_is_nobodys_fault_interrupts(
    runs: Runs, *, trouble: Callable[[Runs, Context], None], is_step: bool
) -> None:
    registry = Registry()
    attempts: list[int] = []
    if trouble is serialization_failure:
        name = runs.connection.info.dbname
        runs.connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'".encode()
        )

    @registry.workflow("adder")
    def adder(wf: Context) -> None:
        attempts.append(1)

        def step() -> None:
            if len(attempts) == 1:
                trouble(runs, wf)
            add(wf, 1)

        if is_step:
            wf.execute("add", step)
        else:
            step()

    key = runs.execute(registry, adder)
    check_done_once(runs, key)
    assert len(attempts) == 2


def test_an_error_of_the_statement_itself_fails(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("wrong")
    def wrong(wf: Context) -> None:
        wf.tx.execute("SELECT 1 / 0")

    key = runs.execute(registry, wrong)
    status = runs.status(key)
    assert (status.status, status.attempts) == ("failed", 1)
    assert "division by zero" in runs.error(key)


@pytest.mark.parametrize("session", ["flows committer", "flows dispatcher", "flows lease keeper"])
def test_a_worker_goes_on_when_a_session_of_its_own_is_terminated(runs: Runs, session: str) -> None:
    registry = Registry()
    gate = Gate()

    @registry.workflow("adder", concurrency=2)
    def adder(wf: Context, role: str) -> None:
        wf.execute("add", lambda: add(wf, 1 if role == "held" else 2))
        if role == "held":
            gate.pass_through()

    held = runs.begin(adder, "held")
    forever = timedelta(hours=1)
    runs.start(registry, poll_interval=forever, max_poll_interval=forever)
    gate.wait_for_arrival()
    ((pid,),) = runs.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        " AND datname = current_database()",
        session,
    )
    terminate(runs, pid)
    other = runs.begin(adder, "other")
    runs.wait_for(other, "completed")
    gate.open()
    runs.wait_for(held, "completed")
    check_done_once(runs, held)
    check_done_once(runs, other, account=2)


@pytest.mark.parametrize("comes_first", ["the-attempt", "the-worker"])
def test_a_worker_that_stops_interrupts_a_statement_instead_of_failing_its_run(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, comes_first: str
) -> None:
    registry = Registry()
    at_statement = threading.Event()
    submitted = threading.Event()

    @registry.workflow("adder")
    def adder(wf: Context) -> None:
        add(wf, 1)
        at_statement.set()
        wf.tx.execute("SELECT pg_advisory_xact_lock(4711)")

    def cancel(connection: psycopg.Connection[Any], *, timeout: float) -> None:
        cancel_safe(connection, timeout=timeout)
        # The statement has failed; its attempt ends before the worker can say anything of it.
        assert submitted.wait(DEADLINE_S)

    def submit(committer: Committer, *record: Any) -> None:
        submit_really(committer, *record)
        submitted.set()

    cancel_safe, submit_really = psycopg.Connection.cancel_safe, Committer.submit
    if comes_first == "the-attempt":
        monkeypatch.setattr(psycopg.Connection, "cancel_safe", cancel)
        monkeypatch.setattr(Committer, "submit", submit)
    with psycopg.connect(runs.dsn) as locker:
        locker.execute("SELECT pg_advisory_xact_lock(4711)")
        key = runs.begin(adder)
        running = runs.start(registry, graceful_shutdown_timeout=timedelta())
        assert at_statement.wait(DEADLINE_S)
        running.stop()
        status = runs.status(key)
        assert (status.status, status.attempts) == ("queued", 0), status.error
        assert amounts(runs) == [0, 0]
    runs.execute_due(registry)
    check_done_once(runs, key)
