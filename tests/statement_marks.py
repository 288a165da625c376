"""What each statement of the engine needs on Citus, by its name in `flows/sql/queries`."""

from __future__ import annotations

__all__ = ["ANY_SHARD", "ASKED_BY_PEOPLE", "NO_TABLE", "ONE_SHARD", "WHOLE_TABLE"]

# One shard: sent to the node that has it. All that is done for a single run or a group of runs.
ONE_SHARD = {
    "cancel_chosen",
    "cancel_requested",
    "cancel_run",
    "cancel_runs",
    "charge_runs",
    "claim_runs",
    "complete_runs",
    "count_runs",
    "fail_overdue",
    "fail_runs",
    "fence_run",
    "forget_cancellations",
    "fork_events",
    "fork_random",
    "fork_run",
    "fork_steps",
    "fork_waits",
    "insert_crashes",
    "insert_run",
    "insert_runs",
    "insert_tick",
    "list_runs",
    "peek_queue",
    "prefetch_memos",
    "read_cancellations",
    "read_event",
    "read_events",
    "read_history",
    "read_input",
    "read_last_run",
    "read_next_deadline",
    "read_next_due",
    "read_random",
    "read_run_output",
    "read_run_status",
    "read_steps",
    "read_waits",
    "release_runs",
    "release_strays",
    "request_cancel",
    "request_cancels",
    "retry_runs",
    "satisfy_wait",
    "show_crashes",
    "show_events",
    "show_queue",
    "show_random",
    "show_run",
    "show_steps",
    "show_waits",
    "sweep_cancellations",
    "sweep_waiting",
    "upsert_event",
    "wake_run",
    "wake_satisfied",
    "write_random",
    "write_steps",
    "write_waits",
    "yield_runs",
}

# Any shard: sent to all nodes, so only reads, and none of them for a run.
ANY_SHARD = {
    "read_next_shard": "for a person who looks at many runs",
    "read_running_shards": "once a worker, when it starts",
    "read_unfinished_shard": "once a worker, when it starts",
    "read_orphaned_workers": "every five seconds, by one process of a host",
    "read_worker_shards": "once a worker, when it ends",
    "report_failed_runs": "once a drain",
    "report_unfinished_runs": "while draining, ever more rarely",
}

# Tables that are whole on one node, and sent there.
WHOLE_TABLE = {
    "advance_schedule",
    "claim_schedules",
    "count_live_workers",
    "delete_schedule",
    "disable_schedule",
    "enable_schedule",
    "insert_worker",
    "read_lease",
    "read_next_schedule",
    "read_schedule",
    "read_schema_version",
    "renew_supervised",
    "renew_worker",
    "show_schedules",
    "show_worker",
    "stop_expired_workers",
    "stop_worker",
    "upsert_schedule",
}

# No table: executed where the session is, which is where others listen.
NO_TABLE = {"notify", "read_time"}

# Asked by the commands of operators: cold in test_plans.py.
ASKED_BY_PEOPLE = {
    "cancel_chosen": "for a person who changes many runs",
    "count_live_workers": "for a person who looks at one run",
    "count_runs": "for a person who changes many runs",
    "forget_cancellations": "likewise",
    "fork_events": "for a person who begins one run from another",
    "fork_random": "likewise",
    "fork_run": "likewise",
    "fork_steps": "likewise",
    "fork_waits": "likewise",
    "list_runs": "for a person who looks at many runs",
    "read_last_run": "likewise",
    "read_next_shard": "likewise",
    "request_cancels": "for a person who changes many runs",
    "retry_runs": "likewise",
    "show_queue": "for a person who looks at one run",
}
