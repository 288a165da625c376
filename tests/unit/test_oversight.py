"""What becomes of runs whose deadline passes while they wait for an executor here."""

from __future__ import annotations

import math

import pytest

from flows.claims import ClaimedRun
from flows.oversight import _outcome_of_overdue
from flows.payloads import NO_PAYLOAD
from flows.records import OutcomeKind


def waiting(later_s: float | None) -> ClaimedRun:
    return ClaimedRun("demo_0", "1", 1, 0, False, NO_PAYLOAD, None, 100.0, None, later_s)


@pytest.mark.parametrize("later_s", [None, 0.0, 5.0])
def test_a_run_past_its_own_deadline_fails(later_s: float | None) -> None:
    outcome = _outcome_of_overdue(waiting(later_s), 105.0)
    assert outcome.kind is OutcomeKind.FAILED
    assert "run demo_0:1 was not done by its deadline" in (outcome.error_text or "")


@pytest.mark.parametrize("later_s", [5.1, math.inf])
def test_a_run_whose_time_ran_since_its_first_claim_goes_back(later_s: float) -> None:
    outcome = _outcome_of_overdue(waiting(later_s), 105.0)
    assert (outcome.kind, outcome.later_s) == (OutcomeKind.NOT_BEGUN, later_s)
