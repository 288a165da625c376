"""A run that is begun with an idempotency key is begun once, whoever begins it again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import IsolationLevel

from flows import Client, Context, DBConfig, Registry, RunKey
from flows.errors import ConfigError
from tests.waiting import wait_for_lock_wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

client = Client()
registry = Registry()


@registry.workflow("charge")
def charge(wf: Context, amount: int) -> int:
    return amount


@pytest.fixture
def tx(runs: Runs) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(runs.dsn) as connection:
        yield connection


def count(runs: Runs) -> int:
    [(number,)] = runs.rows("SELECT count(*) FROM flows.runs")
    return int(number)


def test_the_same_key_gives_the_same_run_whatever_became_of_it(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    key = client.begin_tx(tx, charge, 1, idempotency_key="order 1")
    assert client.begin_tx(tx, charge, 2, idempotency_key="order 1") == key
    tx.commit()
    runs.execute_due(registry)
    assert client.begin_tx(tx, charge, 3, idempotency_key="order 1") == key
    assert client.get_run_output_tx(tx, key, int) == 1
    assert runs.execute_due(registry) == 0


def test_other_keys_other_workflows_and_no_key_are_other_runs(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    keys = {
        client.begin_tx(tx, charge, 1, idempotency_key="order 1"),
        client.begin_tx(tx, charge, 1, idempotency_key="Order 1"),
        client.begin_tx(tx, "other", 1, idempotency_key="order 1"),
        client.begin_tx(tx, charge, 1),
        client.begin_tx(tx, charge, 1),
    }
    tx.commit()
    assert len(keys) == count(runs) == 5


def test_the_same_run_comes_back_on_every_layout_of_shards(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    layouts = [Client(db_config=DBConfig(shard_count=shards)) for shards in (1, 2, 7, 64)]
    for number in range(20):
        order = layouts[number % 4 :] + layouts[: number % 4]
        keys = {each.begin_tx(tx, charge, 1, idempotency_key=f"{number}") for each in order}
        assert len(keys) == 1
    tx.commit()
    assert count(runs) == 20


def test_runs_with_keys_are_spread_over_the_shards_by_their_keys(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    spread = Client(db_config=DBConfig(shard_count=4))
    shards = [
        spread.begin_tx(tx, charge, 1, idempotency_key=f"{number}").workflow_name_shard
        for number in range(40)
    ]
    assert set(shards) == {f"charge_{index}" for index in range(4)}


def test_what_is_rolled_back_leaves_the_key_free(runs: Runs, tx: psycopg.Connection[Any]) -> None:
    first = client.begin_tx(tx, charge, 1, idempotency_key="order 1")
    tx.rollback()
    second = client.begin_tx(tx, charge, 2, idempotency_key="order 1")
    tx.commit()
    assert first != second
    assert runs.execute_due(registry) == 1
    assert client.get_run_output_tx(tx, second) == 2


def begin_while_another_is_about_to(runs: Runs, *, commits: bool) -> tuple[RunKey, RunKey]:
    """Begin a run twice, the second time while the first is not committed yet."""
    second: list[RunKey] = []

    def begin() -> None:
        with Client.connect(runs.dsn) as own:
            second.append(own.begin(charge, 2, idempotency_key="order 1"))

    with psycopg.connect(runs.dsn) as tx:
        first = client.begin_tx(tx, charge, 1, idempotency_key="order 1")
        thread = threading.Thread(target=begin)
        thread.start()
        wait_for_lock_wait(runs.dsn)
        if commits:
            tx.commit()
        else:
            tx.rollback()
        thread.join()
    return first, second[0]


def test_a_second_beginner_waits_for_the_first_and_gets_its_run(runs: Runs) -> None:
    first, second = begin_while_another_is_about_to(runs, commits=True)
    assert first == second
    assert count(runs) == 1


def test_a_second_beginner_begins_it_if_the_first_does_not(runs: Runs) -> None:
    first, second = begin_while_another_is_about_to(runs, commits=False)
    assert first != second
    assert runs.rows("SELECT run_id FROM flows.runs") == [(second.run_id,)]


def test_a_stricter_transaction_that_cannot_see_the_run_is_told_to_be_done_again(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    tx.isolation_level = IsolationLevel.REPEATABLE_READ
    tx.execute("SELECT count(*) FROM flows.runs")
    with Client.connect(runs.dsn) as own:
        key = own.begin(charge, 1, idempotency_key="order 1")
    with pytest.raises(psycopg.errors.SerializationFailure):
        client.begin_tx(tx, charge, 1, idempotency_key="order 1")
    tx.rollback()
    assert client.begin_tx(tx, charge, 1, idempotency_key="order 1") == key


def test_a_key_is_free_again_when_its_run_is_deleted(
    runs: Runs, tx: psycopg.Connection[Any]
) -> None:
    key = client.begin_tx(tx, charge, 1, idempotency_key="order 1")
    tx.execute("DELETE FROM flows.runs")
    assert client.begin_tx(tx, charge, 1, idempotency_key="order 1") != key


@pytest.mark.parametrize("idempotency_key", ["", "a\0b", "\ud800", "x" * 1001, 5])
def test_keys_that_cannot_be_kept_are_refused_and_leave_the_transaction_usable(
    runs: Runs, tx: psycopg.Connection[Any], idempotency_key: Any
) -> None:
    with pytest.raises(ConfigError, match="an idempotency key"):
        client.begin_tx(tx, charge, 1, idempotency_key=idempotency_key)
    client.begin_tx(tx, charge, 1, idempotency_key="x" * 1000)
    tx.commit()
    assert count(runs) == 1


def test_many_are_not_begun_with_one_key(tx: psycopg.Connection[Any]) -> None:
    with pytest.raises(TypeError, match="idempotency_key"):
        client.begin_many_tx(tx, charge, [1], idempotency_key="order 1")  # type: ignore[call-arg]


def test_a_workflow_begins_another_one_once(runs: Runs) -> None:
    nested = Registry()

    @nested.workflow("parent")
    def parent(wf: Context, name: str) -> str:
        return str(client.begin_tx(wf.tx, charge, 1, idempotency_key=name))

    first, second = (
        runs.output(runs.execute(nested, parent, "order 1")),
        runs.output(runs.execute(nested, parent, "order 1")),
    )
    assert first == second
