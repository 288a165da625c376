"""Why a run is not running, for every state it may be in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.cli.run_details import Event, RunDetails, Wait, Worker
from flows.cli.why import MANY_AHEAD, Around, why_not_running

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = "demo_2:0190f0f0-0000-7000-8000-000000000000"
NOTHING = Around(1, 0, 0)


def run(status: str, **changes: Any) -> RunDetails:
    columns: dict[str, Any] = {
        "run_key": KEY,
        "workflow_name": "demo",
        "status": status,
        "attempts": 0,
        "claims": 0,
        "crashes": 0,
        "is_suspect": False,
        "error": None,
        "created_at": NOW - timedelta(seconds=1),
        "started_at": None,
        "updated_at": NOW - timedelta(seconds=1),
        "finished_at": None,
        "next_wake_at": None,
        "deadline": None,
        "cancel_requested_at": None,
        "read_at": NOW,
        "worker": None,
        "input": None,
        "output": None,
    }
    return RunDetails(**columns | changes)


def wait(event: str | None, kind: str = "event") -> Wait:
    return Wait("nap/v1", kind, event, NOW - HOUR, None, None, None, None)


def worker(lease: timedelta, stopped: datetime | None = None) -> Worker:
    return Worker("far", 7, NOW - HOUR, NOW + lease, stopped)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_run_that_is_over_has_no_reason(status: str) -> None:
    assert why_not_running(run(status), Around(0, 5, 5)) == []


@pytest.mark.parametrize(
    ("details", "around", "reasons"),
    [
        (run("queued"), NOTHING, ["it is the next of its shard; 0 being executed"]),
        (
            run("queued"),
            Around(1, 12, 4),
            ["queued behind 12 runs of its shard due before it; 4 being executed"],
        ),
        (
            run("queued"),
            Around(1, MANY_AHEAD, 4),
            ["queued behind 10000 or more runs of its shard due before it; 4 being executed"],
        ),
        (
            run("queued"),
            Around(0, 0, 0),
            [
                "it is the next of its shard; 0 being executed",
                "no live worker executes workflow 'demo': start one",
            ],
        ),
        (
            run("queued", created_at=NOW - HOUR, updated_at=NOW - HOUR),
            NOTHING,
            [
                (
                    "it is the next of its shard and nobody takes it: shard 2 is read by workers"
                    " with --shards 3 or more"
                ),
            ],
        ),
        (
            run("queued", is_suspect=True),
            NOTHING,
            [
                "it may have crashed its process: it waits until it can be executed alone",
                "it is the next of its shard; 0 being executed",
            ],
        ),
        (
            run("sleeping", next_wake_at=NOW + HOUR, waits=[wait(None, "sleep")]),
            NOTHING,
            ["it sleeps in nap/v1 for 1 h 00 min more"],
        ),
        (
            run("sleeping", next_wake_at=NOW + HOUR, attempts=2, error="ValueError"),
            NOTHING,
            ["attempt 2 failed; the next one is in 1 h 00 min"],
        ),
        (run("sleeping", next_wake_at=NOW + HOUR), NOTHING, ["it is due in 1 h 00 min"]),
        (
            run("sleeping", next_wake_at=NOW),
            Around(1, 3, 1),
            ["queued behind 3 runs of its shard due before it; 1 being executed"],
        ),
        (
            run("waiting_event", waits=[wait("Paid")]),
            NOTHING,
            ["it waits for event 'Paid', for 1 h 00 min now"],
        ),
        (
            run("waiting_event", waits=[wait("Paid")], events=[Event("Paid", NOW, None)]),
            NOTHING,
            ["event 'Paid' is there; it is queued within moments"],
        ),
        (run("running", worker=worker(HOUR)), NOTHING, []),
        (
            run("running", worker=worker(-HOUR)),
            NOTHING,
            [
                (
                    "its worker, process 7 on far, has shown no sign of life for 1 h 00 min:"
                    " a live supervisor or worker gives it back to the queue"
                ),
            ],
        ),
        (
            run("running", worker=worker(HOUR, NOW - timedelta(seconds=5))),
            NOTHING,
            [
                (
                    "its worker, process 7 on far, has shown no sign of life for 5.0 s:"
                    " a live supervisor or worker gives it back to the queue"
                ),
            ],
        ),
        (
            run("running", worker=worker(HOUR), cancel_requested_at=NOW - HOUR),
            NOTHING,
            ["it was asked to be cancelled 1 h 00 min ago"],
        ),
        (
            run("running", worker=worker(HOUR), deadline=NOW - HOUR),
            NOTHING,
            ["its deadline passed 1 h 00 min ago: it is about to fail"],
        ),
    ],
)
def test_a_run_that_is_not_over_has_its_reasons(
    details: RunDetails, around: Around, reasons: list[str]
) -> None:
    assert why_not_running(details, around) == reasons
