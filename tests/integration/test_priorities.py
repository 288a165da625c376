"""Of the due runs of a shard, those with a higher priority are claimed first."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from flows import AsyncClient, Client, ConfigError, Context, DBConfig, Registry, RunRetryPolicy
from flows.claims import claim_runs
from flows.database import connect
from flows.shard import shard_values_for_workflow
from tests.integration.command import flows, told
from tests.running import Runs

if TYPE_CHECKING:
    from flows import RunKey

HOUR = timedelta(hours=1)
MAKE_DUE = "UPDATE flows.runs SET next_wake_at = now() WHERE status = 'sleeping' RETURNING 1"
PRIORITIES = "SELECT priority FROM flows.runs ORDER BY priority"
order: list[int] = []
registry = Registry()


@registry.workflow("note")
def note(_wf: Context, number: int) -> None:
    order.append(number)


@registry.workflow(
    "stumble", run_retry=RunRetryPolicy(max_attempts=2, backoff=lambda _: timedelta())
)
def stumble(_wf: Context, number: int) -> None:
    order.append(number)
    if order.count(number) == 1:
        raise ValueError("once")


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    order.clear()


def begin(runs: Runs, number: int, **options: Any) -> RunKey:
    return runs.client.begin_tx(runs.connection, note, number, **options)


def claim(runs: Runs, limit: int, shards: int = 1) -> list[str]:
    """Claim for another worker, and return the ids in the order of their execution."""
    names = shard_values_for_workflow("note", shards)
    with connect(runs.dsn) as connection:
        found = claim_runs(connection, "flows", names, limit, uuid4())
    return [run.run_id for run in found.runs]


def test_a_higher_priority_goes_first_and_within_one_the_oldest(runs: Runs) -> None:
    for number, priority in enumerate([0, 5, 0, 9, 5, 1]):
        begin(runs, number, priority=priority)
    runs.execute_due(registry)
    assert order == [3, 1, 4, 5, 0, 2]


def test_one_claim_has_them_in_their_order(runs: Runs) -> None:
    keys = [begin(runs, 0, priority=priority) for priority in (0, 5, 0, 9, 5, 1)]
    wanted = [str(keys[index].run_id) for index in (3, 1, 4, 5, 0, 2)]
    assert claim(runs, 4) == wanted[:4]
    assert claim(runs, 4) == wanted[4:]


def test_a_run_that_is_not_due_keeps_nobody_back(runs: Runs) -> None:
    begin(runs, 1, priority=9, delay=HOUR)
    begin(runs, 2)
    begin(runs, 3, priority=4)
    runs.execute_due(registry)
    assert order == [3, 2]
    begin(runs, 4, priority=8)
    runs.rows(MAKE_DUE)
    runs.execute_due(registry)
    assert order == [3, 2, 1, 4]


def test_a_run_that_another_has_locked_is_passed_over(runs: Runs) -> None:
    first, second, last = (begin(runs, 0, priority=priority) for priority in (9, 5, 0))
    with psycopg.connect(runs.dsn) as other:
        other.execute(
            "SELECT 1 FROM flows.runs WHERE workflow_name_shard = %s AND run_id = %s"
            " FOR NO KEY UPDATE",
            first,
        )
        assert claim(runs, 3) == [str(second.run_id), str(last.run_id)]
    assert claim(runs, 3) == [str(first.run_id)]


def test_a_run_that_failed_keeps_its_priority(runs: Runs) -> None:
    runs.client.begin_tx(runs.connection, stumble, 1, priority=9)
    runs.client.begin_tx(runs.connection, stumble, 2)
    runs.execute_due(registry)
    assert order == [1, 1, 2, 2]


@pytest.mark.parametrize("priority", [-5, 10, 32767])
def test_a_priority_that_nobody_can_have_given_counts_as_none(runs: Runs, priority: int) -> None:
    begin(runs, 1)
    begin(runs, 2)
    runs.rows("UPDATE flows.runs SET priority = %s WHERE input_json = '1' RETURNING 1", priority)
    begin(runs, 3, priority=1)
    runs.execute_due(registry)
    assert order == [3, 1, 2]


def test_the_order_is_that_of_each_shard(flows_dsn: str) -> None:
    runs = Runs(flows_dsn, DBConfig(shard_count=2))
    try:
        keys = runs.client.begin_many_tx(runs.connection, note, range(20))
        keys += runs.client.begin_many_tx(runs.connection, note, range(20), priority=3)
        claimed = claim(runs, 40, shards=2)
        for shard in shard_values_for_workflow("note", 2):
            ids = [str(key.run_id) for key in keys if key.workflow_name_shard == shard]
            urgent = set(ids) & {str(key.run_id) for key in keys[20:]}
            of_shard = [run_id for run_id in claimed if run_id in ids]
            assert set(of_shard[: len(urgent)]) == urgent
            assert len(of_shard) == len(ids)
    finally:
        runs.close()


def test_every_client_gives_it(runs: Runs) -> None:
    begin(runs, 1, priority=1)
    runs.client.begin_many_tx(runs.connection, note, [1], priority=2)
    begin(runs, 1, priority=3, idempotency_key="one")
    with Client.connect(runs.dsn) as client:
        client.begin(note, 1, priority=4)
        client.begin_many(note, [1], priority=5)

    async def begin_too() -> None:
        async with AsyncClient.connect(runs.dsn) as client:
            await client.begin(note, 1, priority=6)
            await client.begin_many(note, [1], priority=7)

    asyncio.run(begin_too())
    assert runs.rows(PRIORITIES) == [(priority,) for priority in range(1, 8)]


@pytest.mark.parametrize("wrong", [-1, 10, 1.0, "1", None, True])
def test_what_is_no_priority_is_refused_before_a_statement(runs: Runs, wrong: Any) -> None:
    with runs.connection.transaction():
        with pytest.raises(ConfigError, match="a priority is an integer from 0 to 9"):
            begin(runs, 1, priority=wrong)
        with pytest.raises(ConfigError, match="a priority is an integer from 0 to 9"):
            runs.client.begin_many_tx(runs.connection, note, [1], priority=wrong)
        begin(runs, 1, priority=9)
    assert runs.rows(PRIORITIES) == [(9,)]


def test_the_commands_give_it_and_tell_it(runs: Runs) -> None:
    urgent = told("begin", "note", "1", "--priority", "7", "--dsn", runs.dsn).strip()
    plain = told("begin", "note", "1", "--dsn", runs.dsn).strip()
    assert "priority  7\n" in told("runs", "show", urgent, "--dsn", runs.dsn)
    page = told("runs", "show", plain, "--dsn", runs.dsn)
    assert "priority" not in page
    assert "queued behind 1 run of its shard due before it" in page
    listed = json.loads(told("runs", "list", "--json", "--dsn", runs.dsn))["runs"]
    assert [(run["run_key"], run["priority"]) for run in listed] == [(plain, 0), (urgent, 7)]
    done = flows("begin", "note", "1", "--priority", "10", "--dsn", runs.dsn)
    assert done.returncode == 2
    assert "0<=x<=9" in done.stderr
