"""Runs are found by the tags that they were begun with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flows import Client, RunKey
from flows.errors import ConfigError
from tests.integration.command import flows, refused, told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

client = Client()


@pytest.fixture
def tx(runs: Runs) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(runs.dsn) as connection:
        yield connection


def tags(runs: Runs) -> list[Any]:
    return [row[0] for row in runs.rows("SELECT tags FROM flows.runs ORDER BY created_at, run_id")]


def test_tags_are_kept_in_order_and_once(runs: Runs, tx: psycopg.Connection[Any]) -> None:
    client.begin_tx(tx, "render", 1, tags=["customer:7", "blue", "customer:7"])
    client.begin_many_tx(tx, "render", [1, 2], tags={"é"})
    client.begin_tx(tx, "render", 1)
    client.begin_tx(tx, "render", 1, tags=())
    tx.commit()
    assert tags(runs) == [["blue", "customer:7"], ["é"], ["é"], None, None]


@pytest.mark.parametrize(
    "wrong", ["blue", [""], ["a\0b"], [5], ["x" * 201], 5, [str(number) for number in range(33)]]
)
def test_tags_that_cannot_be_kept_are_refused_and_leave_the_transaction_usable(
    runs: Runs, tx: psycopg.Connection[Any], wrong: Any
) -> None:
    with pytest.raises(ConfigError, match="tag"):
        client.begin_tx(tx, "render", 1, tags=wrong)
    client.begin_tx(tx, "render", 1, tags=["x" * 200, *(str(number) for number in range(31))])
    tx.commit()
    assert len(tags(runs)) == 1


def begin(runs: Runs, *options: str) -> str:
    return told("begin", "render", "1", "--dsn", runs.dsn, *options).strip()


def listed(runs: Runs, *options: str) -> list[str]:
    page = json.loads(told("runs", "list", "--json", "--dsn", runs.dsn, *options))
    return [run["run_key"] for run in page["runs"]]


def test_runs_are_listed_by_tags_that_they_all_have(runs: Runs) -> None:
    both = begin(runs, "--tag", "blue", "--tag", "customer:7")
    blue = begin(runs, "--tag", "blue")
    begin(runs)
    assert listed(runs, "--tag", "blue") == [blue, both]
    assert listed(runs, "--tag", "blue", "--tag", "customer:7") == [both]
    assert listed(runs, "--tag", "b") == []
    _, error = refused("runs", "list", "--dsn", runs.dsn, "--tag", "")
    assert error.startswith("a tag must be non-empty text")


def test_runs_are_cancelled_and_queued_again_by_tag(runs: Runs) -> None:
    blue, plain = begin(runs, "--tag", "blue"), begin(runs)
    cancel = ("runs", "cancel", "--dsn", runs.dsn, "--tag", "blue", "--yes")
    assert told(*cancel) == "1 cancelled\n"
    assert [runs.status(RunKey.parse(key)).status for key in (blue, plain)] == [
        "cancelled",
        "queued",
    ]


def test_a_run_shows_its_tags_and_its_key_and_a_fork_of_it_has_the_tags(runs: Runs) -> None:
    key = begin(runs, "--tag", "blue", "--idempotency-key", "order 1")
    assert begin(runs, "--idempotency-key", "order 1") == key
    page = told("runs", "show", key, "--dsn", runs.dsn)
    assert "tags         blue\n" in page
    assert "once by key  order 1\n" in page
    shown = json.loads(told("runs", "show", key, "--json", "--dsn", runs.dsn))
    assert (shown["tags"], shown["idempotency_key"]) == (["blue"], "order 1")
    runs.connection.execute(
        "INSERT INTO flows.steps (workflow_name_shard, run_id, step_key, status)"
        " SELECT workflow_name_shard, run_id, 'one', 'completed' FROM flows.runs"
    )
    fork = flows("runs", "fork", key, "--from-step", "one", "--dsn", runs.dsn).stdout.strip()
    assert listed(runs, "--tag", "blue") == [fork, key]
