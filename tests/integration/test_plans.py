"""Plans: no statement of the hot path looks at runs that are none of its business.

Beside a thousand runs that are due and a thousand that this worker executes stand 20,000 of every
other status. Each statement is explained as it is sent, with a plan for its values and with a
generic one, on tables that were never analyzed and on tables that were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

import flows.sql
from flows import sql
from tests.citus import not_on_citus
from tests.postgres import new_database
from tests.statement_marks import ASKED_BY_PEOPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = not_on_citus("a plan is one node's; where statements go is asked in test_citus.py")

MANY = 20_000
FEW = 1_000
GROUP = 200
SHARD = "demo_0"
ME = UUID(int=1)
DEAD = UUID(int=2)

COLD = {
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

SEED = f"""
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
    created_at, updated_at, next_wake_at, claim, worker_id, finished_at, deadline)
SELECT '{SHARD}', lpad(to_hex(k * 1000000 + n), 32, '0')::uuid, 'demo', status, '1',
    now() - interval '1 day', now() - age, now() + wake, 1,
    CASE WHEN status = 'running' THEN lpad(to_hex(worker + n %% 10), 32, '0')::uuid END,
    CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN now() - age END,
    now() + CASE k WHEN 8 THEN interval '-1 minute' ELSE interval '1 day' END
FROM (VALUES
    (1, 'completed', {MANY}, interval '1 hour', NULL::interval, 0),
    (2, 'failed', {MANY}, interval '1 hour', NULL, 0),
    (3, 'cancelled', {MANY}, interval '1 hour', NULL, 0),
    (4, 'waiting_event', {MANY}, interval '1 hour', NULL, 0),
    (5, 'sleeping', {MANY}, interval '1 hour', interval '1 hour', 0),
    (6, 'running', {MANY}, interval '1 hour', NULL, 256),
    (7, 'queued', {FEW}, interval '1 hour', NULL, 0),
    (8, 'waiting_event', {FEW}, interval '1 minute', NULL, 0)
) AS kind (k, status, count, age, wake, worker), generate_series(1, count) AS n;

INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
    created_at, updated_at, claim, worker_id)
SELECT '{SHARD}', lpad(to_hex(k * 1000000 + n), 32, '0')::uuid, 'demo', 'running', '1',
    now() - interval '1 day', now(), 1, worker::uuid
FROM (VALUES (9, '{ME}'), (10, '{DEAD}')) AS holder (k, worker), generate_series(1, {FEW}) AS n;

INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status, input_json, output_json)
SELECT workflow_name_shard, run_id, 'step/v1', 'completed', '1', '1' FROM flows.runs;

INSERT INTO flows.waits (workflow_name_shard, run_id, wait_key, wait_type, event_name, claim)
SELECT workflow_name_shard, run_id, 'wait/v1', 'event', 'event', 1
FROM flows.runs WHERE status IN ('waiting_event', 'completed');

INSERT INTO flows.events (workflow_name_shard, run_id, event_name, payload_json)
SELECT workflow_name_shard, run_id, 'event', '1' FROM flows.runs WHERE status = 'completed';

INSERT INTO flows.random (workflow_name_shard, run_id, rand_key, kind, value_text)
SELECT workflow_name_shard, run_id, 'key', 'uuidv7', 'x' FROM flows.runs;

INSERT INTO flows.cancellations (workflow_name_shard, run_id, requested_at)
SELECT workflow_name_shard, run_id, now() - interval '1 hour'
FROM flows.runs WHERE status IN ('completed', 'cancelled')
UNION ALL
SELECT '{SHARD}', lpad(to_hex(k * 1000000 + n), 32, '0')::uuid, now()
FROM unnest(ARRAY[8, 9]) AS k, generate_series(1, {GROUP}) AS n;

INSERT INTO flows.schedules (schedule_id, workflow_name, cron_expr, next_run_at, enabled)
SELECT name || n, name, '@every 1h', now() + due * interval '1 minute', enabled
FROM (VALUES
    ('demo', {MANY}, 600, true),
    ('demo-paused', {MANY}, -1, false),
    ('demo-due', {FEW}, -1, true),
    ('elsewhere', {MANY}, -1, true)
) AS kind (name, count, due, enabled), generate_series(1, count) AS n;

INSERT INTO flows.workers (worker_id, supervisor_id, workflow_names, host, pid,
    lease_expires_at, stopped_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, '{{demo}}', 'here', n,
    now() + interval '1 hour', CASE WHEN n = 2 OR n > 300 THEN now() END
FROM generate_series(1, {MANY}) AS n WHERE n < 3 OR n > 255
"""


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
        "keys": ["new/v1"] * count,
        "input_json": ["1"] * count,
        "input_bytes": nulls,
        "input_digests": nulls,
        "attempts": [1] * count,
        "seconds": [0.5] * count,
        "types": ["sleep"] * count,
        "event_names": nulls,
        "payload_json": nulls,
        "payload_bytes": nulls,
        "satisfied": [1] * count,
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
    "payload": "x",
    "workflow_name": "demo",
    "run_timeout_s": None,
    "deadline": None,
    "deadline_in_s": None,
    "delay_s": None,
    "tags": None,
    "idempotency_key": "order 1",
    "start_at": None,
}
SCHEDULED = {"workflow_names": ["demo", "demo-due", "unheard-of"]}
LATE = {**SCHEDULED, "late_s": 1.0, "limit": MANY}
PAYLOAD = {"payload_json": "1", "payload_bytes": None}


WRITTEN = Hot(KEYS, {}, rows=8 * GROUP, buffers=60 * GROUP, group=GROUP)


HOT: dict[str, Hot] = {
    "claim_runs": Hot(
        {"runs_claimable_idx", "runs_pkey"}, {"limit": GROUP}, rows=4 * GROUP, buffers=60 * GROUP
    ),
    "prefetch_memos": Hot(KEYS, {}, rows=12 * GROUP, buffers=60 * GROUP, group=GROUP),
    "read_next_due": Hot({"runs_claimable_idx"}, {}),
    "peek_queue": Hot({"runs_claimable_idx"}, {}),
    "measure_queue": Hot({"runs_claimable_idx"}, {"limit": MANY}, rows=2 * FEW, buffers=2 * FEW),
    "release_strays": Hot(
        {"runs_running_idx", "runs_pkey"},
        {"known": [run_id(9, number + 1) for number in range(FEW)]},
        rows=3 * FEW,
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
    "complete_runs": WRITTEN,
    "fail_runs": WRITTEN,
    "yield_runs": WRITTEN,
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
    "renew_supervised": Hot({"workers_live_idx"}, {}, rows=120, buffers=120),
    "stop_expired_workers": Hot({"workers_live_idx", "workers_pkey"}, {}, rows=60, buffers=120),
    "read_worker_shards": Hot({"runs_running_idx"}, {}, rows=2 * FEW, buffers=FEW),
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


@pytest.fixture(scope="module")
def never_analyzed(server_dsn: str, migrated_template: str) -> Iterator[str]:
    """A full database as it is before autovacuum has come by for the first time."""
    with new_database(server_dsn, template=migrated_template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for table in (
                "runs",
                "steps",
                "waits",
                "events",
                "random",
                "workers",
                "schedules",
                "cancellations",
            ):
                connection.execute(f"ALTER TABLE flows.{table} SET (autovacuum_enabled = off)")
            connection.execute(SEED.replace("%%", "%"))
        yield dsn


@pytest.fixture(scope="module")
def analyzed(server_dsn: str, never_analyzed: str) -> Iterator[str]:
    """The same with statistics."""
    name = psycopg.conninfo.conninfo_to_dict(never_analyzed)["dbname"]
    with new_database(server_dsn, template=str(name)) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ANALYZE")
        yield dsn


@dataclass
class Plan:
    """What a statement did.

    Attributes:
        indexes: that it looked into.
        scanned: tables that it read from end to end.
        rows: that it looked at, those it threw away included.
        buffers: pages that it looked at.
    """

    indexes: set[str]
    scanned: set[str]
    rows: int
    buffers: int

    @classmethod
    def of(cls, root: dict[str, Any]) -> Plan:
        plan = cls(set(), set(), 0, root["Shared Hit Blocks"] + root["Shared Read Blocks"])
        plan.add(root)
        return plan

    def add(self, node: dict[str, Any]) -> None:
        if "Index Name" in node:
            self.indexes.add(node["Index Name"])
        if node["Node Type"] == "Seq Scan":
            self.scanned.add(node["Relation Name"])
        removed = sum(value for key, value in node.items() if key.startswith("Rows Removed"))
        # A bitmap's rows are those of its index, a join's those of its parts.
        is_scan = "Index" in node["Node Type"] or node["Node Type"] == "Seq Scan"
        found = node["Actual Rows"] if is_scan else 0
        self.rows += round((found + removed) * node["Actual Loops"])
        for child in node.get("Plans", ()):
            self.add(child)


def explain(dsn: str, name: str, values: dict[str, Any], mode: str) -> Plan:
    """Explain a statement as a session runs it that has prepared it."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    query = re.sub(r"%\((\w+)\)s", number, sql.load(name).decode())
    with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(f"SET plan_cache_mode = {mode}")
        connection.execute(f"PREPARE hot AS {query}")
        arguments = f"({', '.join(['%s'] * len(names))})" if names else ""
        row = connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot{arguments}",
            [values[name] for name in names],
        ).fetchone()
        connection.rollback()
    assert row is not None
    return Plan.of(row[0][0]["Plan"])


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("database", ["never_analyzed", "analyzed"])
@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_looks_only_at_what_it_is_about(
    request: pytest.FixtureRequest, *, name: str, database: str, mode: str
) -> None:
    hot = HOT[name]
    dsn = request.getfixturevalue(database)
    for count in {hot.group, min(hot.group, 1)}:
        values = {**SHARED, **(group_of(count) if count else {}), **hot.values}
        plan = explain(dsn, name, values, mode)
        share = count / hot.group if count else 1
        if hot.needs_statistics and database == "never_analyzed":
            continue
        assert not plan.scanned, plan
        assert plan.indexes <= hot.indexes, plan
        assert bool(plan.indexes) == bool(hot.indexes), plan
        assert plan.rows <= max(10, hot.rows * share), plan
        assert plan.buffers <= max(200, hot.buffers * share), plan


def test_every_statement_is_hot_or_cold() -> None:
    folder = Path(flows.sql.__file__).parent / "queries"
    assert {path.stem for path in folder.glob("*.sql")} == {*HOT, *COLD}
    assert not set(HOT) & set(COLD)
