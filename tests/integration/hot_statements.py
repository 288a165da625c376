"""The statements of the hot path, how `test_plans.py` sends them, and what each may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.statement_marks import ASKED_BY_PEOPLE

__all__ = [
    "COLD",
    "DEAD",
    "FEW",
    "GROUP",
    "HOT",
    "MANY",
    "ME",
    "ONE",
    "SHARD",
    "SHARED",
    "group_of",
]

MANY = 20_000
FEW = 1_000
GROUP = 200
LEFT = 2 * GROUP
"""Entries of indexes that statements explained before have left behind: they are rolled back."""

SHARD = "demo_0"
ME = UUID(int=1)
DEAD = UUID(int=2)

COLD = {
    "begin_quiet": "once where a crowd begins",
    "end_quiet": "once where it ends",
    "find_late": "of no table",
    **ASKED_BY_PEOPLE,
    "delete_schedule": "when a person or a program changes a schedule",
    "disable_schedule": "likewise",
    "enable_schedule": "likewise",
    "insert_worker": "once a worker",
    "read_history": "for a replay of one run",
    "read_schedule": "when a person or a program changes a schedule",
    "read_schema_version": "once a worker",
    "report_failed_runs": "once a drain",
    "report_unfinished_runs": "while draining, ever more rarely the longer it takes",
    "show_crashes": "for a person who looks at one run",
    "show_events": "likewise",
    "show_random": "likewise",
    "show_run": "likewise",
    "show_schedules": "for a person who looks at schedules",
    "show_steps": "for a person who looks at one run",
    "show_waits": "likewise",
    "show_worker": "likewise",
    "upsert_schedule": "when a person or a program changes a schedule",
}


def run_id(kind: int, number: int = 1) -> str:
    return str(UUID(int=kind * 1_000_000 + number))


def group_of(count: int) -> dict[str, Any]:
    """Return what names runs that this worker executes, with everything that may be written."""
    nulls = [None] * count
    return {
        "run_ids": [run_id(9, number + 1) for number in range(count)],
        "claims": [1] * count,
        "output_json": ["1"] * count,
        "output_bytes": nulls,
        "codecs": nulls,
        "error_texts": ["why"] * count,
        "retry_in_s": [1.5] * count,
        "statuses": ["sleeping"] * count,
        "wake_in_s": [1.5] * count,
        "later_s": [1.5] * count,
        "keys": ["new/v1"] * count,
        "input_json": ["1"] * count,
        "input_bytes": nulls,
        "input_digests": nulls,
        "attempts": [1] * count,
        "seconds": [0.5] * count,
        "ages": [0.1] * count,
        "types": ["sleep"] * count,
        "event_names": nulls,
        "payload_json": nulls,
        "payload_bytes": nulls,
        "satisfied": [1] * count,
        "places": [1000] * count,
        "kinds": ["uuidv7"] * count,
        "texts": ["x"] * count,
        "numbers": nulls,
    }


@dataclass(frozen=True)
class Hot:
    """A statement of the hot path and what it may cost.

    Attributes:
        indexes: all that it uses, one of them at least.
        values: its parameters, in addition to those that many statements have.
        rows: how many rows it may look at.
        buffers: how many pages.
        group: how many runs it writes; such statements are also sent for one.
        needs_statistics: whether it may read whole tables that were never analyzed.
    """

    indexes: set[str]
    values: dict[str, Any]
    rows: int = 3
    buffers: int = 40
    group: int = 0
    needs_statistics: bool = False


KEYS = {
    "runs_pkey",
    "steps_pkey",
    "waits_pkey",
    "events_pkey",
    "random_pkey",
    "cancellations_pkey",
}
ONE = {"run_id": run_id(9)}
WAITING = {"run_id": run_id(8)}
SHARED = {
    "shard": SHARD,
    "now": None,
    "worker_id": ME,
    "supervisor_id": ME,
    "lease_s": 15.0,
    "event_name": "event",
    "codec": None,
    "channel": None,
    "quiet_key": None,
    "is_alone": False,
    "payload": "x",
    "workflow_name": "demo",
    "run_timeout_s": None,
    "from_s": None,
    "deadline": None,
    "deadline_in_s": None,
    "delay_s": None,
    "tags": None,
    "priority": 0,
    "trace_context": None,
    "idempotency_key": "order 1",
    "start_at": None,
}
SCHEDULED = {"workflow_names": ["demo", "demo-due", "unheard-of"]}
LATE = {**SCHEDULED, "late_s": 1.0, "limit": MANY}
PAYLOAD = {"payload_json": "1", "payload_bytes": None}


WRITTEN = Hot(KEYS, {}, rows=8 * GROUP, buffers=60 * GROUP, group=GROUP)


HOT: dict[str, Hot] = {
    "claim_runs": Hot(
        {"runs_urgent_idx", "runs_claimable_idx", "runs_pkey"},
        {"limit": GROUP},
        rows=4 * GROUP,
        buffers=60 * GROUP,
    ),
    "prefetch_memos": Hot(KEYS, {}, rows=12 * GROUP, buffers=60 * GROUP, group=GROUP),
    "read_next_due": Hot({"runs_claimable_idx"}, {}),
    "peek_queue": Hot({"runs_claimable_idx"}, {}),
    "measure_queue": Hot({"runs_claimable_idx"}, {"limit": MANY}, rows=2 * FEW, buffers=2 * FEW),
    "release_strays": Hot(
        {"runs_running_idx", "runs_pkey"},
        {"known": [run_id(9, number + 1) for number in range(FEW)]},
        rows=3 * FEW + LEFT,
        buffers=FEW,
    ),
    "sweep_waiting": Hot(
        {"runs_waiting_idx", *KEYS}, {"window_s": 900.0}, rows=4 * FEW, buffers=14 * FEW
    ),
    "wake_satisfied": Hot(
        KEYS,
        {"run_ids": [run_id(8, number + 1) for number in range(GROUP)]},
        rows=4 * GROUP,
        buffers=20 * GROUP,
    ),
    "cancel_requested": Hot(
        KEYS,
        {"run_ids": [run_id(8, number + 1) for number in range(GROUP)]},
        rows=6 * GROUP,
        buffers=20 * GROUP,
    ),
    "sweep_cancellations": Hot(
        {"cancellations_recent_idx", "runs_pkey"},
        {"window_s": 900.0},
        rows=12 * GROUP,
        buffers=30 * GROUP,
    ),
    "read_cancellations": Hot(
        {"cancellations_pkey"},
        {"run_ids": [run_id(9, number + 1) for number in range(GROUP)]},
        rows=2 * GROUP,
        buffers=4 * GROUP,
    ),
    "request_cancel": Hot({"runs_pkey"}, ONE),
    "cancel_runs": WRITTEN,
    "fail_overdue": Hot(
        {"runs_deadline_idx", "runs_pkey"},
        {"error_type": "RunTimeoutError"},
        rows=4 * FEW,
        buffers=30 * FEW,
    ),
    "read_next_deadline": Hot({"runs_deadline_idx"}, {}),
    "complete_run": Hot(
        {"runs_pkey"},
        {**ONE, "claim": 1, "output_json": "1", "output_bytes": None, "codec": "json"},
        rows=2,
    ),
    "complete_runs": WRITTEN,
    "fail_runs": WRITTEN,
    "yield_runs": WRITTEN,
    "give_back_runs": WRITTEN,
    "insert_steps": WRITTEN,
    "write_steps": WRITTEN,
    "write_waits": WRITTEN,
    "write_random": WRITTEN,
    "fence_run": Hot({"runs_pkey"}, {**ONE, "claim": 1}),
    "read_event": Hot({"events_pkey"}, {"run_id": run_id(1)}),
    "read_input": Hot({"runs_pkey", "cancellations_pkey"}, ONE),
    "read_steps": Hot({"steps_pkey"}, ONE),
    "read_waits": Hot({"waits_pkey"}, WAITING),
    "read_events": Hot({"events_pkey"}, {"run_id": run_id(1)}),
    "read_random": Hot({"random_pkey"}, ONE),
    "insert_run": Hot(set(), {"run_id": run_id(99), "input_json": "1", "input_bytes": None}),
    "insert_plain_run": Hot(set(), {"run_id": run_id(97), "input_json": "1", "input_bytes": None}),
    "insert_keyed_run": Hot(set(), {"run_id": run_id(98), "input_json": "1", "input_bytes": None}),
    "read_keyed_run": Hot({"runs_idempotency_idx"}, {}),
    "insert_runs": Hot(
        set(),
        {
            "run_ids": [run_id(99, number) for number in range(GROUP)],
            "input_json": ["1"] * GROUP,
            "input_bytes": [None] * GROUP,
        },
        rows=2 * GROUP,
        buffers=60 * GROUP,
    ),
    "notify": Hot(set(), {"channel": "somewhere"}),
    "upsert_event": Hot({"runs_pkey"}, {**WAITING, **PAYLOAD}),
    "wake_run": Hot(KEYS, WAITING, rows=5),
    "satisfy_wait": Hot({"waits_pkey"}, {**WAITING, **PAYLOAD}),
    "cancel_run": Hot({"runs_pkey"}, {"run_id": run_id(7)}),
    "read_run_status": Hot({"runs_pkey"}, ONE),
    "read_run_output": Hot({"runs_pkey"}, ONE),
    "read_lease": Hot({"workers_pkey"}, {}),
    "renew_worker": Hot({"workers_pkey"}, {}),
    "stop_worker": Hot({"workers_pkey"}, {}),
    "renew_supervised": Hot({"workers_live_idx"}, {"dead": []}, rows=120, buffers=120),
    "stop_expired_workers": Hot({"workers_live_idx", "workers_pkey"}, {}, rows=60, buffers=120),
    "read_worker_shards": Hot({"runs_running_idx"}, {}, rows=2 * FEW + LEFT, buffers=FEW),
    "read_orphaned_workers": Hot(
        # Every five seconds, by one process of a host.
        {"runs_running_idx", "workers_live_idx"},
        {},
        rows=3 * MANY,
        buffers=MANY // 10,
        needs_statistics=True,
    ),
    "read_unfinished_shard": Hot({"runs_claimable_idx", "runs_waiting_idx"}, {"after": ""}),
    "read_running_shards": Hot(
        # Once a worker, but with all of them.
        {"runs_running_idx"},
        {},
        rows=3 * MANY,
        buffers=MANY // 10,
        needs_statistics=True,
    ),
    "read_next_schedule": Hot({"schedules_due_by_workflow_idx"}, SCHEDULED),
    "count_late_schedules": Hot(
        {"schedules_due_by_workflow_idx"}, LATE, rows=2 * FEW, buffers=2 * FEW
    ),
    "claim_schedules": Hot(
        {"schedules_due_by_workflow_idx"},
        {**SCHEDULED, "wanted": GROUP},
        rows=3 * FEW,
        buffers=2 * GROUP,
    ),
    "insert_tick": Hot(
        set(),
        {
            "run_id": run_id(99),
            "status": "queued",
            "next_wake_at": None,
            "input_json": "1",
            "input_bytes": None,
            "now": "2026-01-01",
        },
    ),
    "advance_schedule": Hot(
        {"schedules_pkey"},
        {
            "schedule_id": "demo1",
            "next_run_at": "2026-01-01",
            "last_run_at": None,
            "last_shard": None,
            "last_run_id": None,
            "now": "2026-01-01",
        },
    ),
    "read_time": Hot(set(), {}),
    "charge_runs": Hot(
        {"runs_pkey"},
        {
            "worker_id": DEAD,
            "max_crashes": 3,
            "run_ids": [run_id(10, number + 1) for number in range(GROUP)],
            "claims": [1] * GROUP,
            "causes": ["SIGSEGV"] * GROUP,
        },
        rows=4 * GROUP,
        buffers=60 * GROUP,
    ),
    "insert_crashes": Hot(
        {"runs_pkey", "crashes_pkey"},
        {
            "worker_id": DEAD,
            "cause": "SIGSEGV",
            "host": "here",
            "pid": 1,
            "run_ids": [run_id(10, number + 1) for number in range(GROUP)],
            "claims": [1] * GROUP,
            "step_keys": ["step/v1"] * GROUP,
        },
        rows=4 * GROUP,
        buffers=60 * GROUP,
    ),
    "release_runs": Hot(
        {"runs_running_idx", "runs_pkey"},
        {"worker_id": DEAD, "suspects": [run_id(10, 1)]},
        rows=4 * FEW,
        buffers=60 * FEW,
    ),
}
