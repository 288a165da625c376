"""Log records that say of which run they are.

While a run is being executed, every record made in its thread, by whatever logger, has the
attributes `workflow`, `run_id`, `attempt` and `step`; elsewhere they are None. Threads that a
step starts have them too if they are started with a copy of its context (`contextvars`).

Records made within a span of OpenTelemetry have `trace_id` and `span_id`, in runs and elsewhere.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from flows import tracing

__all__ = ["FIELDS", "TRACE_FIELDS", "RunScope", "in_step", "install", "scope"]


class RunScope(NamedTuple):
    """What is being executed.

    Attributes:
        workflow: its name.
        run_id: of the run, as text.
        attempt: which attempt it is, from 1.
        step: the key of the step whose function is running, None between steps.
    """

    workflow: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    step: str | None = None


FIELDS = RunScope._fields
"""The attributes that records have."""

TRACE_FIELDS = ("trace_id", "span_id")
"""The attributes that they have in addition, in hexadecimal as in `traceparent`; else None."""

_NOTHING = RunScope()

scope: ContextVar[RunScope] = ContextVar("flows.run", default=_NOTHING)
"""What this thread executes at the moment."""


class _Factory:
    """Makes records by way of the factory that was there before, and adds the attributes."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        for name, value in zip(FIELDS, scope.get(), strict=True):
            # A record may have such an attribute of its own: that one counts.
            record.__dict__.setdefault(name, value)
        for name, value in zip(TRACE_FIELDS, tracing.current_ids(), strict=True):
            record.__dict__.setdefault(name, value)
        return record


def in_step(key: str) -> Token[RunScope]:
    """Name the step that is running from here on; `scope.reset` takes it back."""
    workflow, run_id, attempt, _ = scope.get()
    return scope.set(RunScope(workflow, run_id, attempt, key))


def install() -> None:
    """Have all records of this process tell of their run; again is no harm."""
    present = logging.getLogRecordFactory()
    if not isinstance(present, _Factory):
        logging.setLogRecordFactory(_Factory(present))
