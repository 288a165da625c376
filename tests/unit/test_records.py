"""Records: what is taken to be written, and what has to wait for the outcome."""

from __future__ import annotations

from flows.payloads import NO_PAYLOAD
from flows.records import Outcome, OutcomeKind, RandomRecord, RunRecord, StepRecord, WaitRecord

STEP = StepRecord("trace", True, NO_PAYLOAD, NO_PAYLOAD, b"", None, 1, 0.1, 0.0)
OPEN = WaitRecord("cooldown", "sleep", None, is_satisfied=False)
OVER = WaitRecord("number", "event", "Number", is_satisfied=True)
RANDOM = RandomRecord("salt", "uint64", None, 7)
SLEEPING = Outcome(OutcomeKind.SLEEPING, wake_in_s=1.0)


def record() -> RunRecord:
    record = RunRecord("demo_0", "0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b", claim=3)
    record.steps["trace"] = STEP
    record.add_wait(OVER)
    record.add_random(RANDOM)
    return record


def test_memos_are_taken_once() -> None:
    left = record()
    taken = left.take()
    assert (taken.shard, taken.run_id, taken.claim) == (left.shard, left.run_id, 3)
    assert (taken.steps, taken.waits, taken.randoms) == (
        {"trace": STEP},
        {"number": OVER},
        {"salt": RANDOM},
    )
    assert (left.steps, left.waits, left.randoms) == ({}, {}, {})


def test_a_sleep_is_not_written_before_its_run_sleeps() -> None:
    left = record()
    left.add_wait(OPEN)
    before = left.take()
    assert before.waits == {"number": OVER}
    left.outcome = SLEEPING
    after = left.take()
    assert after.waits == {"cooldown": OPEN}
    assert after.outcome is SLEEPING
    assert left.outcome is None


def test_records_share_nothing_that_is_added_to_one() -> None:
    left, other, fresh = record(), record(), RunRecord("demo_0", "0190f0b1", claim=1)
    taken = left.take(), other.take()
    left.add_wait(OPEN)
    left.add_random(RANDOM)
    for none in (other, fresh, RunRecord("demo_0", "0190f0b2", claim=1)):
        assert (none.steps, none.waits, none.randoms) == ({}, {}, {})
    for each in taken:
        assert (each.waits, each.randoms) == ({"number": OVER}, {"salt": RANDOM})


def test_what_is_added_does_not_move_what_is_there() -> None:
    # A run may come to ten thousand waits within one transaction.
    left = record()
    waits, randoms = left.waits, left.randoms
    left.add_wait(OPEN)
    left.add_random(RANDOM)
    assert left.waits is waits
    assert left.randoms is randoms
