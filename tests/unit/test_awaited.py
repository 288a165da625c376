"""What a worker remembers of runs that are waited for."""

from __future__ import annotations

import pytest

from flows.awaited import MAX_REMEMBERED, Awaited, channel_of_ends
from flows.records import Outcome, OutcomeKind, RunRecord


def record(run_id: str, outcome: Outcome | None) -> RunRecord:
    record = RunRecord("noop_0", run_id, 1)
    record.outcome = outcome
    return record


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        (Outcome(OutcomeKind.COMPLETED), True),
        (Outcome(OutcomeKind.CANCELLED), True),
        (Outcome(OutcomeKind.FAILED), True),
        (Outcome(OutcomeKind.FAILED, wake_in_s=1.0), False),
        (Outcome(OutcomeKind.SLEEPING, wake_in_s=1.0), False),
        (Outcome(OutcomeKind.WAITING_EVENT), False),
        (Outcome(OutcomeKind.RELEASED), False),
        (None, False),
    ],
)
def test_the_end_of_a_run_is_told_once_and_nothing_else(
    outcome: Outcome | None,
    ends: bool,
) -> None:
    awaited = Awaited("channel")
    awaited.add("noop_0:a")
    records = [record("a", outcome), record("b", outcome)]
    for _ in range(2):  # a commit may have to be tried again
        assert awaited.among(records) == (["noop_0:a"] if ends else [])
    awaited.forget(records)
    assert awaited.among([record("a", Outcome(OutcomeKind.COMPLETED))]) == (
        [] if ends else ["noop_0:a"]
    )


def test_of_too_many_the_first_is_forgotten() -> None:
    awaited = Awaited("channel")
    for number in range(MAX_REMEMBERED + 1):
        awaited.add(f"noop_0:{number}")
    done = Outcome(OutcomeKind.COMPLETED)
    assert awaited.among([record("0", done)]) == []
    assert awaited.among([record("1", done)]) == ["noop_0:1"]
    assert awaited.among([record(str(MAX_REMEMBERED), done)]) == [f"noop_0:{MAX_REMEMBERED}"]


def test_the_channel_of_ends_is_a_name_that_postgres_takes() -> None:
    assert channel_of_ends("flows_run_wakeup") == "flows_run_wakeup_ended"
    assert len(channel_of_ends("x" * 63)) == 63
