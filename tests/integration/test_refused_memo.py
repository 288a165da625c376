"""A memo that the database will not take, while its attempt goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows import Context, Registry
from tests.crash.holds import Hold
from tests.running import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.running import Runs

REFUSE = "ALTER TABLE flows.steps ADD CONSTRAINT refused CHECK (step_key <> 'bad/v1')"
TAKE = "ALTER TABLE flows.steps DROP CONSTRAINT refused"


def test_a_refused_memo_fails_its_run_and_holds_up_no_other(runs: Runs) -> None:
    registry = Registry()
    later: list[int] = []

    @registry.workflow("refused")
    def refused(wf: Context) -> None:
        wf.execute("bad/v1", lambda: 1)
        # Holds the run's row, which the committer must not wait for.
        wf.tx.execute("SELECT 1")
        # Its commit waits until the fate of the memo before it is known.
        wf.random_uint64("random/v1")
        wf.execute("later/v1", lambda: later.append(1))

    @registry.workflow("other")
    def other(wf: Context) -> int:
        return wf.execute("good/v1", lambda: 2)

    runs.connection.execute(REFUSE)
    try:
        bad = runs.begin(refused)
        runs.start(registry)
        runs.wait_for(bad, "failed")
        good = runs.begin(other)
        runs.wait_for(good, "completed")
    finally:
        runs.connection.execute(TAKE)
    assert "the database would not take a memo of this run" in runs.error(bad)
    assert later == []


def test_a_memo_that_is_refused_after_its_attempt_has_ended_fails_the_run(runs: Runs) -> None:
    gate, registry = Gate(), Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        value = wf.execute("bad/v1", lambda: 1)
        gate.pass_through()
        return value

    runs.connection.execute(REFUSE)
    try:
        with Hold(runs.dsn, "NEW.step_key = 'bad/v1'", table="steps", on="INSERT") as hold:
            key = runs.begin(demo)
            worker = runs.start(registry).worker
            hold.wait_for_arrival()
            gate.open()
            services = worker._services
            assert services is not None
            committer = services.engine.committer
            wait_until(lambda: committer.backlog == 2, what="the outcome waits for the memo")
        runs.wait_for(key, "failed")
        wait_until(lambda: not committer.backlog, what="nothing waits any more")
        with committer.lock:
            assert committer._bytes == 0
    finally:
        runs.connection.execute(TAKE)
    assert 'violates check constraint "refused"' in runs.error(key)
    assert runs.status(key).attempts == 1
