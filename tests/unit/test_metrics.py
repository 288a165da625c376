"""Numbers are added up without losing any, and for no more series than there may be."""

from __future__ import annotations

from flows.meter import Meter
from flows.metrics import (
    ATTEMPT_SECONDS,
    BY_NAME,
    COMMIT_GROUP_RUNS,
    COMMIT_SECONDS,
    CRASHES,
    MOST_STEPS,
    OTHER_STEPS,
    OUTCOMES_DROPPED,
    RUN_RETRIES,
    RUNS_ENDED,
    STEP_RETRIES,
    STEP_SECONDS,
    Tally,
    observe,
    zeros,
)
from flows.payloads import NO_PAYLOAD
from flows.records import Outcome, OutcomeKind, RunRecord, StepRecord


def record(
    kind: OutcomeKind | None, took_s: float = 0.0, retry_in_s: float | None = None, **steps: float
) -> RunRecord:
    made = RunRecord("demo_0", "id", 1)
    made.outcome = None if kind is None else Outcome(kind, wake_in_s=retry_in_s)
    made.took_s = took_s
    for key, seconds in steps.items():
        is_kept = not key.startswith("failed")
        made.steps[key] = StepRecord(
            key, is_kept, NO_PAYLOAD, NO_PAYLOAD, b"", None if is_kept else "why", 1, seconds, 0.0
        )
    return made


def test_a_value_falls_into_the_first_bucket_that_holds_it() -> None:
    bounds = (1.0, 10.0)
    series = [0.0, 0.0, 0.0, 0.0]
    for value in (0.5, 1.0, 1.001, 10.0, 10.001):
        observe(series, bounds, value)
    assert series == [2, 2, 1, 22.502]


def test_what_is_taken_is_told_once_and_adds_up_elsewhere() -> None:
    here, totals = Tally(), Tally()
    for _ in range(2):
        here.add([((CRASHES.name, "demo"), [1])])
        totals.add(here.take())
    assert here.take() == ()
    assert totals.read() == (((CRASHES.name, "demo"), [2]),)
    assert totals.read() == totals.read()


def test_what_was_read_does_not_change_any_more() -> None:
    totals = Tally()
    totals.add(zeros("demo"))
    before = totals.read()
    totals.add([((CRASHES.name, "demo"), [1])])
    assert before == zeros("demo")


def test_steps_beyond_the_most_are_counted_together_in_every_tally() -> None:
    here, totals = Tally(), Tally()
    for number in range(MOST_STEPS + 2):
        with here.lock:
            observe(here.series(STEP_SECONDS, "demo", f"page-{number}"), STEP_SECONDS.bounds, 1)
    totals.add(here.take())
    steps = {key[2]: numbers[-1] for key, numbers in totals.read()}
    assert len(steps) == MOST_STEPS + 1
    assert steps[OTHER_STEPS] == 2
    # Those of another process are others.
    totals.add([((STEP_SECONDS.name, "demo", "elsewhere"), [1] * (len(STEP_SECONDS.bounds) + 2))])
    assert dict(totals.read())[STEP_SECONDS.name, "demo", OTHER_STEPS][-1] == 3


def test_a_meter_counts_ends_retries_durations_and_steps_that_returned() -> None:
    meter = Meter("demo")
    meter.committed(
        [
            record(OutcomeKind.COMPLETED, 0.5, fetch=0.25, failed=9.0),
            record(OutcomeKind.FAILED, 2.0),
            record(OutcomeKind.FAILED, 3.0, retry_in_s=0.0),
            record(OutcomeKind.CANCELLED),
            record(OutcomeKind.SLEEPING, 4.0),
            record(None, 100.0, fetch=1.0),
        ]
    )
    meter.failed(2)
    meter.retried_step()
    counted = dict(meter.take())
    assert counted[RUNS_ENDED.name, "demo", "completed"] == [1]
    assert counted[RUNS_ENDED.name, "demo", "failed"] == [3]
    assert counted[RUNS_ENDED.name, "demo", "cancelled"] == [1]
    assert counted[RUN_RETRIES.name, "demo"] == [1]
    assert counted[STEP_RETRIES.name, "demo"] == [1]
    assert counted[ATTEMPT_SECONDS.name, "demo"][-1] == 9.5
    assert sum(counted[ATTEMPT_SECONDS.name, "demo"][:-1]) == 4
    assert counted[STEP_SECONDS.name, "demo", "fetch"][-1] == 1.25
    assert {key for key in counted if key[0] == RUNS_ENDED.name} == {
        (RUNS_ENDED.name, "demo", outcome) for outcome in ("completed", "failed", "cancelled")
    }
    assert (STEP_SECONDS.name, "demo", "failed") not in counted


def test_a_meter_counts_groups_and_what_was_dropped_of_them() -> None:
    meter = Meter("demo")
    meter.wrote_group(3, 0.002, 0)
    assert (OUTCOMES_DROPPED.name, "demo") not in dict(meter.take())
    meter.wrote_group(1, 0.004, 1)
    counted = dict(meter.take())
    assert counted[OUTCOMES_DROPPED.name, "demo"] == [1]
    assert counted[COMMIT_GROUP_RUNS.name, "demo"][-1] == 1
    assert counted[COMMIT_SECONDS.name, "demo"][-1] == 0.004


def test_a_workflow_has_its_counters_from_the_first() -> None:
    there = {key[0] for key, numbers in zeros("demo") if not any(numbers)}
    growing = {each.name for each in BY_NAME.values() if each.kind != "gauge"}
    # Which steps a workflow has is not known before they have run.
    assert there == growing - {STEP_SECONDS.name}
