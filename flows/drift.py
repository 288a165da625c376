"""Drift: steps whose input is not what their memo was made from any more.

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

    from flows.memos import Memos
    from flows.payloads import Payload

__all__ = ["DriftCheck", "DriftPolicy", "drift_of"]

DriftPolicy = Literal["warn", "error"]
"""What is done about it: log a warning and use the memo, or raise `DriftError`."""


class DriftCheck:
    """Compares the inputs of one attempt's steps with those of their memos."""

    def __init__(self, run_key: str, policy: DriftPolicy, logger: logging.Logger) -> None:
        """Check the steps of a run."""
        self._run_key = run_key
        self._policy = policy
        self._logger = logger

    def compare(self, step_key: str, memos: Memos, given: Payload) -> None:
        """Report a step that is given other input than its memo was made from.

        Raises:
            DriftError: it is, and the policy is `"error"`.
        """
        error = drift_of(self._run_key, step_key, memos, given)
        if error is None:
            return
        if self._policy == "error":
            raise error
        self._logger.warning("%s; the memo is used", error)


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
