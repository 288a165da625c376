"""Parameters for every statement: those of the hot path's tests, and what these have none for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.integration import hot_statements

__all__ = ["values_of"]

_CHOSEN = {
    "statuses": None,
    "is_held": False,
    "least": UUID(int=0),
    "greatest": UUID(int=2**128 - 1),
    "older_s": None,
    "newer_s": None,
    "error": None,
}
"""What the filters of `flows runs list` are without any of them."""

_FORK = {"new_id": UUID(int=98), "step_key": "new/v1"}

_VALUES: dict[str, dict[str, Any]] = {
    "cancel_chosen": {"run_ids": [UUID(int=1)]},
    "backdate_runs": {"by_s": 1.0, "begun_after": None},
    "backdate_sleeps": {"by_s": 1.0},
    "count_runs": _CHOSEN,
    "delete_schedule": {"schedule_id": "x"},
    "disable_schedule": {"schedule_id": "x", "error_text": None},
    "enable_schedule": {"schedule_id": "x", "next_run_at": "2026-01-01"},
    "estimate_runs": {"status": "queued"},
    "find_run": {"shards": ["demo_0", "demo_1"]},
    "forget_cancellations": {"run_ids": [UUID(int=1)]},
    "fork_events": _FORK,
    "fork_random": _FORK,
    "fork_run": _FORK,
    "fork_steps": _FORK,
    "fork_waits": _FORK,
    "insert_worker": {"workflow_names": ["a"], "host": "h", "pid": 1, "worker_id": UUID(int=99)},
    "list_runs": {**_CHOSEN, "excluded": None, "limit": 10},
    "prune_runs": {"after": None, "limit": 10, "older_s": 1.0, "statuses": ["failed"]},
    "read_next_shard": {"after": ""},
    "read_schedule": {"schedule_id": "x"},
    "report_failed_runs": {"shards": ["demo_0", "demo_1"], "since": "2026-01-01"},
    "report_indexed_runs": {"limit": 10},
    "report_newest_runs": {"limit": 10, "window_s": 1.0},
    "report_unfinished_runs": {"shards": ["demo_0", "demo_1"]},
    "request_cancels": {"run_ids": [UUID(int=1)]},
    "retry_runs": {"run_ids": [UUID(int=1)]},
    "show_queue": {"limit": 10},
    "show_schedules": {"schedule_id": None},
    "upsert_schedule": {
        "schedule_id": "x",
        "cron_expr": "@every 1h",
        "next_run_at": "2026-01-01",
        "now": "2026-01-01",
        **dict.fromkeys(
            ("timezone", "input_json", "input_bytes", "catch_up", "catch_up_limit", "overlap")
        ),
        **dict.fromkeys(("jitter", "last_run_at", "last_shard", "last_run_id")),
    },
}


def values_of(name: str) -> dict[str, Any]:
    """Return parameters with which a statement can be executed; what it finds does not matter."""
    hot = hot_statements.HOT.get(name)
    group = hot_statements.group_of(hot.group) if hot is not None and hot.group else {}
    known = hot.values if hot is not None else _VALUES.get(name, {})
    return {**hot_statements.SHARED, **group, **hot_statements.ONE, **known}
