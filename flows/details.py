"""What an attempt does, told line by line to whoever listens at level debug; never a payload."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flows.clock import monotonic
from flows.failures import first_line

if TYPE_CHECKING:
    from flows.records import Outcome, StepRecord

__all__ = ["Details", "details_of"]


class Details:
    """The lines of one attempt."""

    def __init__(self, logger: logging.Logger, run_id: str) -> None:
        """Prepare to tell what the attempt of a run that begins now does."""
        self._logger = logger
        self._run_id = run_id
        self._began_s = monotonic()

    def begin(self, workflow: str, attempt: int, memos: int) -> None:
        """Tell that the workflow function is about to be called."""
        self._say(f"attempt {attempt} of {workflow} begins, with {memos} memos")

    def replay(self, key: str) -> None:
        """Tell that a step is not executed, for it has a memo."""
        self._say(f"step {key!r} has its memo")

    def try_step(self, record: StepRecord) -> None:
        """Tell how a try of a step has ended."""
        took = f"after {record.seconds * 1000:.1f} ms"
        if record.error_text is None:
            self._say(f"step {record.key!r} completed {took}")
        else:
            error = first_line(record.error_text)
            self._say(f"step {record.key!r} failed {took}, try {record.attempts}: {error}")

    def sleep(self, key: str, seconds: float) -> None:
        """Tell that the attempt is about to end for a sleep."""
        self._say(f"sleep {key!r} has {seconds:.3f} s to go")

    def wait(self, key: str, event_name: str) -> None:
        """Tell that the attempt is about to end for an event that is not there."""
        self._say(f"wait {key!r} is for event {event_name!r}")

    def end(self, outcome: Outcome | None) -> None:
        """Tell how the attempt has ended; None if its claim was lost."""
        how = "claim lost" if outcome is None else outcome.kind.value
        self._say(f"attempt ends after {(monotonic() - self._began_s) * 1000:.1f} ms: {how}")

    def _say(self, text: str) -> None:
        self._logger.debug("run %s: %s", self._run_id, text)


def details_of(logger: logging.Logger, run_id: str) -> Details | None:
    """Return what tells of an attempt, None if nobody would hear it."""
    return Details(logger, run_id) if logger.isEnabledFor(logging.DEBUG) else None
