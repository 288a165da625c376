"""Statements for what attempts left behind: none is too large, and they leave little garbage."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from flows.payloads import NO_PAYLOAD, Payload
from flows.records import Outcome, OutcomeKind, RunRecord, StepRecord
from flows.writes import statements_for

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 500
STEPS = 5


def counted(make: Callable[[], Any]) -> int:
    """Return how many objects the garbage collector has counted while they were made and kept."""
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        kept = make()
        after = gc.get_count()[0]
    finally:
        gc.enable()
    assert kept
    return after - before


def record_with(*sizes: int) -> RunRecord:
    record = RunRecord("demo_0", "00000000-0000-0000-0000-000000000001", 1)
    for number, size in enumerate(sizes):
        output = Payload(b"x" * size, None, None)
        record.steps[f"step/{number}"] = StepRecord(
            f"step/{number}", True, NO_PAYLOAD, output, b"", None, 1, 0.0, 0.0
        )
    return record


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([10] * 10, [10]),
        ([10] * 11, [10, 1]),
        ([101], [1]),
        ([5, 101, 5], [1, 1, 1]),
        ([50, 50, 50], [2, 1]),
    ],
)
def test_memos_of_a_run_go_out_in_statements_of_a_bounded_size(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], parts: list[int]
) -> None:
    monkeypatch.setattr("flows.writes.MAX_STATEMENT_BYTES", 100)
    statements = list(statements_for([record_with(*sizes)]))
    assert {statement.query for statement in statements} == {"write_steps"}
    # The binary array: dimensions, null flag, element type, length.
    counts = [int.from_bytes(each.values["claims"].data[12:16]) for each in statements]
    assert counts == parts


def test_a_large_group_is_made_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.writes.MAX_ROWS", 4)
    records = []
    for number in range(5):
        record = record_with(1)
        record.run_id = f"00000000-0000-0000-0000-{4 - number:012}"
        record.outcome = Outcome(OutcomeKind.COMPLETED, output=Payload(b"1", None, None))
        records.append(record)
    made = statements_for(records)
    parts = [(next(made), next(made)) for _ in range(3)]
    assert list(made) == []
    assert [outcomes.outcomes for outcomes, _ in parts] == [2, 2, 1]
    assert [memos.query for _, memos in parts] == ["write_steps"] * 3
    # In the order of their ids: the memos of a part are of the runs that it has locked.
    ids = [memos.values["run_ids"].data[-1] for _, memos in parts]
    assert ids == [1, 3, 4]


def test_only_what_a_first_attempt_has_returned_at_once_is_written_as_new() -> None:
    again, first = record_with(1), record_with(1, 1, 1)
    first.is_first = True
    first.steps["step/1"] = msgspec.structs.replace(first.steps["step/1"], attempts=2)
    failed = msgspec.structs.replace(first.steps["step/2"], is_completed=False, error_text="no")
    first.steps["step/2"] = failed
    new, others = statements_for([again, first])
    assert (new.query, others.query) == ("insert_steps", "write_steps")
    assert new.values["keys"].data.endswith(b"step/0")
    assert [value in new.values for value in ("statuses", "error_texts", "attempts")] == [False] * 3
    assert others.values["keys"].data.count(b"step/") == 3


def test_the_collector_counts_a_record_and_its_dictionary_and_no_memo() -> None:
    def make() -> list[RunRecord]:
        records = [record_with(*[10] * STEPS) for _ in range(RUNS)]
        for record in records:
            record.outcome = Outcome(OutcomeKind.COMPLETED, output=Payload(b"1", None, None))
        return records

    assert counted(make) < 3 * RUNS


def test_the_collector_counts_no_row_of_a_statement() -> None:
    records = [record_with(*[10] * STEPS) for _ in range(RUNS)]
    assert counted(lambda: list(statements_for(records))) < RUNS


def test_the_collector_counts_what_is_taken_once() -> None:
    records = [record_with(*[10] * STEPS) for _ in range(RUNS)]
    assert counted(lambda: [record.take() for record in records]) < 3 * RUNS
