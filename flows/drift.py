"""Drift: steps whose input is not what their memo was made from any more, waits for another event.

A workflow function has to give its steps the same input at every replay. Where the code was
changed under a run, or depends on something outside, it does not, and the memo belongs to a
question that is not asked any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from flows import payloads
from flows.errors import DriftError

if TYPE_CHECKING:
    import logging

    from flows.memos import Memos, WaitMemo
    from flows.payloads import Payload

__all__ = ["DriftCheck", "DriftPolicy", "drift_of", "event_drift_of"]

DriftPolicy = Literal["warn", "error"]
"""What is done about it: log a warning and use the memo, or raise `DriftError`."""


class DriftCheck:
    """Compares what an attempt's steps and waits are given with what their memos were made from."""

    def __init__(self, run_key: str, policy: DriftPolicy, logger: logging.Logger) -> None:
        """Check the steps and waits of a run."""
        self._run_key = run_key
        self._policy = policy
        self._logger = logger

    def compare(self, step_key: str, memos: Memos, given: Payload) -> None:
        """Report a step that is given other input than its memo was made from.

        Raises:
            DriftError: it is, and the policy is `"error"`.
        """
        self._report(drift_of(self._run_key, step_key, memos, given), "the memo is used")

    def compare_event(self, wait_key: str, memo: WaitMemo, event_name: str) -> None:
        """Report a wait, open or over, that was begun for another event.

        Raises:
            DriftError: it was, and the policy is `"error"`.
        """
        done = "the memo is used" if memo.is_satisfied else "the latter is waited for"
        self._report(event_drift_of(self._run_key, wait_key, memo, event_name), done)

    def _report(self, error: DriftError | None, done: str) -> None:
        if error is None:
            return
        if self._policy == "error":
            raise error
        self._logger.warning("%s; %s", error, done)


def drift_of(run_key: str, step_key: str, memos: Memos, given: Payload) -> DriftError | None:
    """Return how a step's input differs from its memo's; None if it does not, or nobody knows.

    Inputs that another codec has encoded cannot be compared, nor can those of the reference
    package, which keeps no digest.
    """
    before = memos.digests.get(step_key)
    if before is None or memos.steps[step_key].codec != given.codec:
        return None
    now = payloads.digest_of(given).hex()
    return None if now == before else DriftError(run_key, step_key, before, now)


def event_drift_of(
    run_key: str, wait_key: str, memo: WaitMemo, event_name: str
) -> DriftError | None:
    """Return how the event of a wait differs from the one it was begun for; None if it does not."""
    before = memo.event_name
    if before is None or before == event_name:
        return None
    return DriftError(run_key, wait_key, before, event_name, "wait")
