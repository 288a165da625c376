"""Shards: claims go round them, and one that was notified comes first."""

from __future__ import annotations

import itertools
import tempfile
import uuid
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from flows import Context, DBConfig, Registry, RunKey
from flows.claims import Claimed, claim_runs
from flows.clock import monotonic
from flows.database import connect
from flows.lookahead import MAX_AHEAD
from flows.shard import shard_values_for_workflow
from tests.running import Gate, Runs
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

SHARDS = 4
HOUR = timedelta(hours=1)
INSERT = """
    INSERT INTO flows.runs (workflow_name_shard, run_id, workflow_name, status, input_json)
    SELECT %s, gen_random_uuid(), 'demo', 'queued', 'null' FROM generate_series(1, %s)
"""


@pytest.fixture
def sharded(flows_dsn: str) -> Iterator[Runs]:
    """Runs over four shards a workflow."""
    runs = Runs(flows_dsn, DBConfig(shard_count=SHARDS))
    yield runs
    runs.close()


class Claim(NamedTuple):
    """What a dispatcher asked for, and whether it was given all of that."""

    shards: Sequence[str]
    is_full: bool


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """The claims of dispatchers, as they come."""
    made: list[Claim] = []

    def recording(
        connection: Any,
        schema: str,
        shards: Sequence[str],
        limit: int,
        worker_id: UUID,
        **how: Any,
    ) -> Claimed:
        claimed = claim_runs(connection, schema, shards, limit, worker_id, **how)
        made.append(Claim(shards, len(claimed.runs) == limit))
        return claimed

    monkeypatch.setattr("flows.dispatcher.claim_runs", recording)
    return made


def fill(runs: Runs, shard: str, number: int) -> None:
    """Begin so many runs in one shard, of which nobody tells."""
    runs.connection.execute(INSERT, (shard, number))


def begin_in(runs: Runs, shard: str) -> RunKey:
    """Begin a run in one shard."""
    while True:
        with runs.connection.transaction():
            key = runs.begin("demo")
            if key.workflow_name_shard == shard:
                return key
            raise psycopg.Rollback


def recorder() -> tuple[Registry, list[str], Gate]:
    """Return a registry, the shards whose runs were executed in turn, and a gate for the first."""
    registry, gate = Registry(), Gate()
    executed: list[str] = []

    @registry.workflow("demo")
    def demo(wf: Context, inp: Any) -> None:
        executed.append(wf.run_key.workflow_name_shard)
        if len(executed) == 1:
            gate.pass_through()

    return registry, executed, gate


def test_runs_of_every_shard_are_executed(sharded: Runs) -> None:
    registry, executed, gate = recorder()
    gate.open()
    keys = sharded.client.begin_many_tx(sharded.connection, "demo", [None] * 40)
    sharded.start(registry)
    for key in keys:
        sharded.wait_for(key, "completed")
    assert Counter(executed) == Counter(key.workflow_name_shard for key in keys)
    assert set(executed) == set(shard_values_for_workflow("demo", SHARDS))


def test_claims_begin_at_another_shard_each_time(sharded: Runs, claims: list[Claim]) -> None:
    registry, _, gate = recorder()
    gate.open()
    shards = shard_values_for_workflow("demo", SHARDS)
    for shard in shards:
        # More than any claim takes: none comes to a second shard.
        fill(sharded, shard, registry.get("demo").concurrency + MAX_AHEAD + 1)
    sharded.start(registry)
    wait_until(lambda: len(claims) >= SHARDS, what="claims went round")
    assert [claim.shards[0] for claim in claims[:SHARDS]] == shards


def test_process_one_goes_round_the_shards_of_each_workflow(sharded: Runs) -> None:
    registry, executed, gate = recorder()
    gate.open()
    registry.workflow("other")(lambda wf, inp: None)
    shards = shard_values_for_workflow("demo", SHARDS)
    for shard in shards:
        for _ in range(SHARDS):
            begin_in(sharded, shard)
    sharded.client.begin_many_tx(sharded.connection, "other", [None] * SHARDS)
    with sharded.worker(registry) as worker:
        for _ in range(2 * SHARDS):
            assert worker.process_one()
    assert sorted(executed) == shards


def test_a_flooded_shard_does_not_starve_the_others(sharded: Runs) -> None:
    registry = Registry()
    executed: list[str] = []
    fill(sharded, "demo_1", 12)
    fill(sharded, "demo_3", 1)

    @registry.workflow("demo")
    def demo(wf: Context, inp: Any) -> None:
        executed.append(wf.run_key.workflow_name_shard)
        # The shard never ceases to be notified, and runs are too long to be claimed ahead.
        sharded.connection.execute("SELECT pg_notify('flows_run_wakeup', 'demo_1')")
        end_s = monotonic() + 0.06
        wait_until(lambda: monotonic() > end_s, what="it has taken its time")

    sharded.start(registry, poll_interval=HOUR, max_poll_interval=HOUR)
    wait_until(lambda: len(executed) == 13, what="all are executed")
    assert executed.index("demo_3") <= SHARDS


def test_the_notified_shard_comes_first(sharded: Runs, claims: list[Claim]) -> None:
    registry, executed, gate = recorder()
    gate.open()
    sharded.start(registry, poll_interval=HOUR, max_poll_interval=HOUR)
    shards = shard_values_for_workflow("demo", SHARDS)
    for notified in shards:
        executed.clear()
        wait_until(lambda: claims and not claims[-1].is_full, what="the worker is idle")
        with sharded.connection.transaction():
            # Due runs that nobody tells of, in every other shard.
            for shard in set(shards) - {notified}:
                fill(sharded, shard, 1)
            begin_in(sharded, notified)
        wait_until(lambda: executed, what="one is executed")
        for shard in shards:
            sharded.connection.execute("SELECT pg_notify('flows_run_wakeup', %s)", (shard,))
        wait_until(lambda: len(executed) == SHARDS, what="all are executed")
        assert executed[0] == notified


def test_an_empty_poll_of_many_shards_is_one_round_trip(sharded: Runs) -> None:
    shards = shard_values_for_workflow("demo", 32)
    sharded.connection.execute(
        "INSERT INTO flows.runs"
        " (workflow_name_shard, run_id, workflow_name, status, input_json, next_wake_at)"
        " VALUES (%s, gen_random_uuid(), 'demo', 'sleeping', 'null', now() + interval '1 hour')",
        (shards[7],),
    )
    with connect(sharded.dsn) as connection, tempfile.TemporaryFile() as protocol:
        claim_runs(connection, "flows", shards, 1, uuid.uuid4())
        connection.pgconn.trace(protocol.fileno())
        claimed = claim_runs(connection, "flows", shards, 1, uuid.uuid4())
        connection.pgconn.untrace()
        protocol.seek(0)
        lines = protocol.read().decode().splitlines()
    assert not claimed.runs
    assert set(claimed.next_due_s) == set(shards)
    due_s = claimed.next_due_s[shards[7]]
    assert due_s is not None
    assert 3500 < due_s <= 3600
    senders = [sender for sender, _ in itertools.groupby(line.split("\t")[1] for line in lines)]
    assert senders == ["F", "B"]


def test_a_shard_that_nobody_tells_of_is_polled_while_another_is_flooded(sharded: Runs) -> None:
    registry = Registry()
    executed: list[str] = []

    def begin_and_tell() -> None:
        with psycopg.connect(sharded.dsn, autocommit=True) as connection:
            connection.execute(INSERT, ("demo_1", 2))
            connection.execute("SELECT pg_notify('flows_run_wakeup', 'demo_1')")

    @registry.workflow("demo")
    def demo(wf: Context, inp: Any) -> None:
        executed.append(wf.run_key.workflow_name_shard)
        if "demo_2" not in executed:
            # Each run begins two more: claims come back full for ever.
            begin_and_tell()

    sharded.start(registry)
    begin_and_tell()
    wait_until(lambda: len(executed) > 10, what="the flood has begun")
    fill(sharded, "demo_2", 1)
    wait_until(lambda: "demo_2" in executed, what="the other shard was looked at")


def test_process_one_looks_into_every_shard(sharded: Runs) -> None:
    registry, executed, gate = recorder()
    gate.open()
    for shard in shard_values_for_workflow("demo", SHARDS):
        begin_in(sharded, shard)
    assert sharded.execute_due(registry) == SHARDS
    assert set(executed) == set(shard_values_for_workflow("demo", SHARDS))


def test_steps_waits_events_and_random_values_are_kept_in_the_shard_of_their_run(
    sharded: Runs,
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        wf.execute("step/v1", lambda: 1)
        wf.random_uint64("salt/v1")
        return wf.wait_for_event("number/v1", "Number")

    keys = sharded.client.begin_many_tx(sharded.connection, demo, [None] * 20)
    sharded.execute_due(registry)
    for key in keys:
        sharded.publish(key, "Number", 3)
    sharded.execute_due(registry)
    assert [sharded.output(key) for key in keys] == [3] * 20
    for table in ("steps", "waits", "events", "random"):
        stored = sharded.rows(f"SELECT workflow_name_shard, run_id FROM flows.{table}")
        assert sorted(stored) == sorted(tuple(key) for key in keys)


def test_a_worker_of_fewer_shards_leaves_the_others_runs_alone(sharded: Runs) -> None:
    registry, executed, gate = recorder()
    gate.open()
    sharded.config = DBConfig(shard_count=1)
    # At its start there is nothing that it would leave out.
    assert sharded.execute_due(registry) == 0
    for shard in shard_values_for_workflow("demo", SHARDS):
        begin_in(sharded, shard)
    assert sharded.execute_due(registry) == 1
    assert executed == ["demo_0"]
