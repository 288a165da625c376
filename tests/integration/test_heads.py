"""Claims that follow each other begin where the last one has ended, and leave nothing behind."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Context, Registry, dispatcher, heads, sql
from flows.claims import claim_runs, wake_satisfied
from flows.database import connect
from flows.heads import MANY, Heads
from tests.citus import not_on_citus
from tests.running import Gate
from tests.waiting import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows import RunKey
    from flows.database import Connection
    from tests.running import Runs

SHARD = "demo_0"
WORKER = uuid.uuid4()
QUEUE = "runs_claimable_idx"


@pytest.fixture
def connection(runs: Runs) -> Iterator[Connection]:
    with connect(runs.dsn) as connection:
        yield connection


def begin_in_turn(runs: Runs, count: int) -> list[str]:
    """Begin runs that were due a second after each other; return their ids, the oldest first."""
    keys = runs.client.begin_many_tx(runs.connection, "demo", [None] * count)
    ids = [str(key.run_id) for key in keys]
    ((now,),) = runs.rows("SELECT now()")
    runs.rows(
        "UPDATE flows.runs SET created_at = u.due_at"
        " FROM unnest(%s::uuid[], %s::timestamptz[]) AS u (run_id, due_at)"
        " WHERE runs.run_id = u.run_id AND workflow_name_shard = %s RETURNING 1",
        ids, [now - timedelta(seconds=count - number) for number in range(count)], SHARD,
    )  # fmt: skip
    return ids


def begin_late(runs: Runs) -> str:
    """Begin a run that is older than all others, as if it had taken an hour to commit."""
    key = runs.begin("demo")
    age(runs, key)
    return str(key.run_id)


def age(runs: Runs, key: RunKey) -> None:
    """Have a run be an hour old."""
    runs.rows(
        "UPDATE flows.runs SET created_at = now() - interval '1 hour'"
        " WHERE workflow_name_shard = %s AND run_id = %s RETURNING 1",
        SHARD, key.run_id,
    )  # fmt: skip


def claim(connection: Connection, known: Heads) -> list[str]:
    claimed = claim_runs(connection, "flows", [SHARD], MANY, WORKER, heads=known)
    return [run.run_id for run in claimed.runs]


def test_what_is_older_than_the_head_is_found_once_nothing_is_left_behind_it(
    runs: Runs, connection: Connection
) -> None:
    ids, known = begin_in_turn(runs, 2 * MANY), Heads()
    assert claim(connection, known) == ids[:MANY]
    late = begin_late(runs)
    assert claim(connection, known) == ids[MANY:]
    assert claim(connection, known) == [late]


def test_what_is_older_than_the_head_is_found_after_a_while_in_a_flood(
    runs: Runs, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "WHOLE_S", 0.0)
    ids, known = begin_in_turn(runs, 3 * MANY), Heads()
    assert claim(connection, known) == ids[:MANY]
    late = begin_late(runs)
    assert claim(connection, known) == [late, *ids[MANY : 2 * MANY - 1]]


def test_the_claim_that_finds_the_end_takes_the_older_ones_too(
    runs: Runs, connection: Connection
) -> None:
    ids, known = begin_in_turn(runs, MANY + 5), Heads()
    assert claim(connection, known) == ids[:MANY]
    late = begin_late(runs)
    claimed = claim_runs(connection, "flows", [SHARD], MANY, WORKER, heads=known)
    assert [run.run_id for run in claimed.runs] == [*ids[MANY:], late]
    assert claimed.next_due_s == {SHARD: None}


def test_a_run_that_has_its_event_is_older_than_the_head_and_does_not_wait_behind_it(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MANY", 1)
    monkeypatch.setattr(heads, "WHOLE_S", 3600.0)
    looked_at, gate, order = threading.Event(), Gate(), []
    registry = Registry()

    def wake_and_tell(*args: Any) -> int:
        woken = wake_satisfied(*args)
        looked_at.set()
        return woken

    @registry.workflow("demo")
    def demo(wf: Context, what: str) -> None:
        if what == "wait":
            wf.wait_for_event("go/v1", "Go")
        elif what == "gate":
            gate.pass_through()
        order.append(what)

    waiter = runs.begin("demo", "wait")
    runs.execute_due(registry)
    keys = [runs.begin("demo", what) for what in ("gate", "plain", "plain")]
    age(runs, waiter)
    monkeypatch.setattr(dispatcher, "wake_satisfied", wake_and_tell)
    runs.start(registry)
    gate.wait_for_arrival()
    runs.publish(waiter, "Go")
    assert looked_at.wait(DEADLINE_S)
    gate.open()
    for key in keys:
        runs.wait_for(key, "completed")
    assert order == ["gate", "wait", "plain", "plain"]


@not_on_citus("which explains what the node does otherwise")
def test_what_was_claimed_is_not_walked_over_again_while_a_snapshot_is_held(
    runs: Runs, connection: Connection
) -> None:
    begin_in_turn(runs, 2000)
    known = Heads()
    with psycopg.connect(runs.dsn) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM flows.runs")
        claim_runs(connection, "flows", [SHARD], 1500, WORKER, heads=known)
        from_s = known.begin(SHARD, MANY, 0.0)
        assert from_s is not None
        whole, behind = (pages_of_a_look(connection, start) for start in (None, from_s))
    assert behind * 4 < whole


def pages_of_a_look(connection: Connection, from_s: float | None) -> int:
    values = {
        "shard": SHARD, "limit": MANY, "worker_id": WORKER, "now": None, "run_timeout_s": None,
        "from_s": from_s,
    }  # fmt: skip
    query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.load("claim_runs")
    with connection.transaction(force_rollback=True):
        row = connection.execute(query, values).fetchone()
    assert row is not None
    (look,) = (node for node in nodes(row[0][0]["Plan"]) if node.get("Index Name") == QUEUE)
    return int(look["Shared Hit Blocks"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
