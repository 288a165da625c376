"""The meter of a worker process: what it does, counted as it does it.

There is one only where somebody wants to know. What comes with every run is counted by the group in
which it was committed: what was not committed has not happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.metrics import (
    ATTEMPT_SECONDS,
    CLAIM_SECONDS,
    COMMIT_GROUP_RUNS,
    COMMIT_SECONDS,
    OUTCOMES_DROPPED,
    RUN_RETRIES,
    RUNS_ENDED,
    STEP_RETRIES,
    STEP_SECONDS,
    Tally,
    observe,
)
from flows.records import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.metrics import Changes
    from flows.records import Outcome, RunRecord

__all__ = ["Meter"]


class Meter:
    """Counts what a worker of one workflow does; from any of its threads."""

    def __init__(self, workflow: str) -> None:
        """Count for a workflow."""
        self._workflow = workflow
        self._tally = Tally()

    def take(self) -> Changes:
        """Return what was counted since the last time."""
        return self._tally.take()

    def claimed(self, took_s: float) -> None:
        """Count a claim that the database has answered."""
        with self._tally.lock:
            series = self._tally.series(CLAIM_SECONDS, self._workflow)
            observe(series, CLAIM_SECONDS.bounds, took_s)

    def retried_step(self) -> None:
        """Count a try of a step that is followed by another one."""
        with self._tally.lock:
            self._tally.series(STEP_RETRIES, self._workflow)[0] += 1

    def failed(self, runs: int) -> None:
        """Count runs that have failed without an attempt."""
        with self._tally.lock:
            self._tally.series(RUNS_ENDED, self._workflow, OutcomeKind.FAILED.value)[0] += runs

    def wrote_group(self, runs: int, took_s: float, dropped: int) -> None:
        """Count a commit of the committer's.

        Args:
            runs: how many it was for.
            took_s: from BEGIN to the answer to COMMIT, in seconds.
            dropped: how many of the outcomes were not written.
        """
        tally, workflow = self._tally, self._workflow
        with tally.lock:
            groups = tally.series(COMMIT_GROUP_RUNS, workflow)
            observe(groups, COMMIT_GROUP_RUNS.bounds, runs)
            observe(tally.series(COMMIT_SECONDS, workflow), COMMIT_SECONDS.bounds, took_s)
            if dropped:
                tally.series(OUTCOMES_DROPPED, workflow)[0] += dropped

    def committed(self, records: Sequence[RunRecord]) -> None:
        """Count what attempts have left behind."""
        tally, workflow = self._tally, self._workflow
        with tally.lock:
            attempts = tally.series(ATTEMPT_SECONDS, workflow)
            completed = tally.series(RUNS_ENDED, workflow, OutcomeKind.COMPLETED.value)
            for record in records:
                outcome = record.outcome
                if outcome is not None:
                    if outcome.kind is OutcomeKind.COMPLETED:
                        completed[0] += 1
                    else:
                        self._count(outcome)
                    if record.took_s:
                        observe(attempts, ATTEMPT_SECONDS.bounds, record.took_s)
                for step in record.steps.values():
                    if step.is_completed:
                        series = tally.series(STEP_SECONDS, workflow, step.key)
                        observe(series, STEP_SECONDS.bounds, step.seconds)

    def _count(self, outcome: Outcome) -> None:
        """Count an outcome that is less frequent."""
        if outcome.kind is OutcomeKind.FAILED and outcome.wake_in_s is not None:
            self._tally.series(RUN_RETRIES, self._workflow)[0] += 1
        elif outcome.kind in {OutcomeKind.FAILED, OutcomeKind.CANCELLED}:
            self._tally.series(RUNS_ENDED, self._workflow, outcome.kind.value)[0] += 1
