"""Statements for what attempts left behind: none is larger than a message of the protocol."""

from __future__ import annotations

import pytest

from flows.payloads import NO_PAYLOAD, Payload
from flows.records import RunRecord, StepRecord
from flows.writes import statements_for


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
