"""What a worker's meter counts, whichever way it is committed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from flows import Context, Registry, RetryPolicy, RunRetryPolicy
from flows.meter import Meter
from flows.metrics import (
    ATTEMPT_SECONDS,
    CLAIM_SECONDS,
    COMMIT_GROUP_RUNS,
    RUN_RETRIES,
    RUNS_ENDED,
    STEP_RETRIES,
    STEP_SECONDS,
    Tally,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from flows.metrics import Key
    from tests.running import Runs

registry = Registry()


@registry.workflow("demo", run_retry=RunRetryPolicy(2))
def demo(wf: Context, how: str) -> None:
    match how:
        case "transaction":
            wf.tx.execute("SELECT 1")
            wf.execute("in transaction/v1", int)
        case "fragile":
            tries = iter([ValueError("not yet"), None])
            wf.execute("fragile/v1", lambda: fail_with(next(tries)), retry=RetryPolicy(1))
        case "failing":
            raise ValueError("no")
        case "sleeping":
            wf.sleep("nap/v1", timedelta(hours=1))


def fail_with(error: Exception | None) -> None:
    if error is not None:
        raise error


def count(runs: Runs, how: str, ended: int, *, deadline: timedelta | None = None) -> dict[Key, int]:
    """Execute a run until it has ended; return how many values each series has by then."""
    meter, totals = Meter("demo"), Tally()
    runs.start(registry, meter=meter)
    runs.client.begin_tx(runs.connection, demo, how, deadline=deadline)

    def counted() -> dict[Key, int]:
        totals.add(meter.take())
        return {
            key: int(sum(numbers[:-1]) if len(numbers) > 1 else numbers[0])
            for key, numbers in totals.read()
        }

    def has_ended() -> bool:
        return sum(n for key, n in counted().items() if key[0] == RUNS_ENDED.name) == ended

    wait_until(has_ended, what="the end of the run is counted")
    return counted()


def test_what_is_committed_with_the_users_transaction_is_counted(runs: Runs) -> None:
    counted = count(runs, "transaction", 1)
    assert counted[RUNS_ENDED.name, "demo", "completed"] == 1
    assert counted[ATTEMPT_SECONDS.name, "demo"] == 1
    assert counted[STEP_SECONDS.name, "demo", "in transaction/v1"] == 1
    assert counted[CLAIM_SECONDS.name, "demo"] >= 1
    assert (COMMIT_GROUP_RUNS.name, "demo") not in counted


def test_tries_of_steps_and_attempts_are_counted(runs: Runs) -> None:
    counted = count(runs, "fragile", 1)
    assert counted[STEP_RETRIES.name, "demo"] == 1
    assert counted[STEP_SECONDS.name, "demo", "fragile/v1"] == 1
    assert (RUN_RETRIES.name, "demo") not in counted


def test_an_attempt_that_is_followed_by_another_is_no_end(runs: Runs) -> None:
    counted = count(runs, "failing", 1)
    assert counted[RUNS_ENDED.name, "demo", "failed"] == 1
    assert counted[RUN_RETRIES.name, "demo"] == 1
    assert counted[ATTEMPT_SECONDS.name, "demo"] == 2


def test_a_run_whose_deadline_passes_while_it_sleeps_has_failed(runs: Runs) -> None:
    counted = count(runs, "sleeping", 1, deadline=timedelta(milliseconds=300))
    assert counted[RUNS_ENDED.name, "demo", "failed"] == 1
    assert counted[ATTEMPT_SECONDS.name, "demo"] == 1
