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

import psycopg
import pytest

import flows.sql
from flows import sql
from tests.citus import not_on_citus
from tests.integration.hot_statements import (
    COLD,
    DEAD,
    FEW,
    GROUP,
    HOT,
    MANY,
    ME,
    SHARD,
    SHARED,
    group_of,
)
from tests.postgres import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = not_on_citus("a plan is one node's; where statements go is asked in test_citus.py")

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

INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json,
    created_at, updated_at, next_wake_at, priority)
SELECT '{SHARD}', lpad(to_hex(k * 1000000 + n), 32, '0')::uuid, 'demo', 'sleeping', '1',
    now() - interval '1 day', now(), now() + wake, priority
FROM (VALUES
    (11, 9, {MANY}, interval '1 day'),
    (12, 1, {MANY}, interval '1 day'),
    (13, 5, {GROUP} / 2, interval '-1 hour')
) AS kind (k, priority, count, wake), generate_series(1, count) AS n;

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


OTHERS = """
INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
SELECT 'other_' || shard, gen_random_uuid(), 'other', 'queued', '1'
FROM generate_series(1, 100) AS shard, generate_series(1, 100)
"""


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


@pytest.fixture(scope="module")
def many_shards(server_dsn: str, analyzed: str) -> Iterator[str]:
    """The same beside a hundred other shards: the planner expects few rows of one."""
    name = psycopg.conninfo.conninfo_to_dict(analyzed)["dbname"]
    with new_database(server_dsn, template=str(name)) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(OTHERS)
            connection.execute("ANALYZE flows.runs")
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
@pytest.mark.parametrize("database", ["never_analyzed", "analyzed", "many_shards"])
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
        # A session that is new reads the catalog too: about 25 pages for each index of a table.
        assert plan.buffers <= max(250, hot.buffers * share), plan


def test_every_statement_is_hot_or_cold() -> None:
    folder = Path(flows.sql.__file__).parent / "queries"
    assert {path.stem for path in folder.glob("*.sql")} == {*HOT, *COLD}
    assert not set(HOT) & set(COLD)


def test_what_is_returned_of_a_write_calls_no_function_that_may_change(server_dsn: str) -> None:
    """Citus refuses others: what they give might differ from node to node."""
    called = {
        (name, function)
        for name in (*HOT, *COLD)
        for clause in re.findall(
            r"\bRETURNING\b(.*?)(?:\n\)|\Z)", sql.load(name).decode(), re.DOTALL
        )
        for function in re.findall(r"\b(\w+)\(", clause)
    }
    assert called
    query = """
        SELECT proname::text FROM pg_proc
        WHERE proname = ANY(%s) AND pronamespace = 'pg_catalog'::regnamespace AND provolatile <> 'i'
    """
    with psycopg.connect(server_dsn) as connection:
        rows = connection.execute(query, (sorted({function for _, function in called}),)).fetchall()
    changing = {function for (function,) in rows}
    assert sorted(one for one in called if one[1] in changing) == []
