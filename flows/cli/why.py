"""Why a run is not running: what it waits for, in words.

Pure: everything that was read of the run and around it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from flows.cli.quantities import duration
from flows.shard import shard_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from flows.cli.run_details import RunDetails

__all__ = ["MANY_AHEAD", "Around", "why_not_running"]

MANY_AHEAD = 10_000
"""Not more runs than these are counted before one."""

_LONG_S = 60.0
"""A run that is first in its queue and so long due is not even looked at."""


class Around(msgspec.Struct, frozen=True):
    """What was read around a run.

    Attributes:
        live_workers: how many live workers execute its workflow.
        ahead: how many runs of its shard are due before it, at most `MANY_AHEAD`.
        executing: how many runs of its shard are being executed.
    """

    live_workers: int
    ahead: int
    executing: int


def why_not_running(run: RunDetails, around: Around) -> list[str]:
    """Return why a run is not being executed; nothing if it is, or is over."""
    if run.finished_at is not None or run.status in {"completed", "failed", "cancelled"}:
        return []
    reasons = [*_state(run, around), *_besides(run)]
    if around.live_workers == 0 and run.status != "running":
        reasons.append(f"no live worker executes workflow {run.workflow_name!r}: start one")
    return reasons


def _state(run: RunDetails, around: Around) -> Iterator[str]:
    match run.status:
        case "running":
            yield from _running(run)
        case "waiting_event":
            yield from _waiting(run)
        case "sleeping":
            yield from _sleeping(run, around)
        case "queued":
            yield from _queued(run, around, run.created_at)


def _running(run: RunDetails) -> Iterator[str]:
    worker = run.worker
    if worker is None:
        yield "it runs, in a worker that is not registered: one of another program"
    elif worker.stopped_at is not None or worker.lease_expires_at < run.read_at:
        last = worker.stopped_at or worker.lease_expires_at
        yield (
            f"its worker, process {worker.pid} on {worker.host}, has shown no sign of life for"
            f" {_ago(last, run.read_at)}: a live supervisor or worker gives it back to the queue"
        )


def _waiting(run: RunDetails) -> Iterator[str]:
    published = {event.name for event in run.events}
    for wait in run.waits:
        if wait.satisfied_at is None and wait.event_name is not None:
            since = _ago(wait.started_at, run.read_at)
            if wait.event_name in published:
                yield f"event {wait.event_name!r} is there; it is queued within moments"
            else:
                yield f"it waits for event {wait.event_name!r}, for {since} now"


def _sleeping(run: RunDetails, around: Around) -> Iterator[str]:
    if run.next_wake_at is None or run.next_wake_at <= run.read_at:
        yield from _queued(run, around, run.next_wake_at or run.created_at)
        return
    wake = duration((run.next_wake_at - run.read_at).total_seconds())
    naps = [w.key for w in run.waits if w.satisfied_at is None and w.type == "sleep"]
    if run.error is not None and run.attempts:
        yield f"attempt {run.attempts} failed; the next one is in {wake}"
    elif naps:
        yield f"it sleeps in {naps[-1]} for {wake} more"
    else:
        yield f"it is due in {wake}"


def _queued(run: RunDetails, around: Around, due: datetime) -> Iterator[str]:
    if run.is_suspect:
        yield "it may have crashed its process: it waits until it can be executed alone"
    if around.ahead:
        many = "or more " if around.ahead >= MANY_AHEAD else ""
        runs = "run" if around.ahead == 1 else "runs"
        yield (
            f"queued behind {around.ahead} {many}{runs} of its shard due before it;"
            f" {around.executing} being executed"
        )
        return
    late_s = (run.read_at - max(due, run.updated_at)).total_seconds()
    index = shard_index(run.run_key.rpartition(":")[0]) or 0
    if late_s > _LONG_S and around.live_workers and not around.executing:
        yield (
            f"it is the next of its shard and nobody takes it: shard {index} is read by workers"
            f" with --shards {index + 1} or more"
        )
    else:
        yield f"it is the next of its shard; {around.executing} being executed"


def _besides(run: RunDetails) -> Iterator[str]:
    if run.cancel_requested_at is not None:
        yield f"it was asked to be cancelled {_ago(run.cancel_requested_at, run.read_at)} ago"
    if run.deadline is not None and run.deadline <= run.read_at:
        yield f"its deadline passed {_ago(run.deadline, run.read_at)} ago: it is about to fail"


def _ago(at: datetime, now: datetime) -> str:
    return duration((now - at).total_seconds())
