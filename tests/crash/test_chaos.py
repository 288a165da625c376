"""Two workers, many runs, and sessions that are terminated at random: the sums stay exact."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.app import registry
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.crash.harness import Battlefield

RUNS = 150
ACCOUNTS = 7
PER_TERMINATION = 5


@pytest.mark.parametrize("workflow", ["transfer", "transfer-by-step"])
def test_the_ledger_is_exact_whatever_is_terminated(
    battlefield: Battlefield, workflow: str
) -> None:
    runs = battlefield.runs
    runs.connection.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL)")
    runs.connection.execute(
        "INSERT INTO accounts SELECT id, 0 FROM generate_series(0, %s) AS id", (ACCOUNTS - 1,)
    )
    for _ in range(2):
        battlefield.start().expect("ready")
    choose = random.Random(workflow).choice
    with runs.connection.transaction():
        keys = runs.client.begin_many_tx(runs.connection, registry.get(workflow), range(RUNS))
    for finished in range(PER_TERMINATION, RUNS + 1, PER_TERMINATION):
        wait_until_ended(battlefield, finished)
        terminate(battlefield, choose(battlefield.sessions()))
    statuses = [runs.status(key) for key in keys]
    assert {(status.status, status.attempts) for status in statuses} == {("completed", 0)}
    check_books(battlefield)


def wait_until_ended(battlefield: Battlefield, count: int) -> None:
    statement = (
        "SELECT 1 FROM flows.runs WHERE status IN ('completed', 'failed') HAVING count(*) >= %s"
    )
    wait_until(lambda: battlefield.runs.rows(statement, count), what=f"{count} runs ended")


def terminate(battlefield: Battlefield, pid: int) -> None:
    battlefield.runs.rows("SELECT pg_terminate_backend(%s::int)", pid)


def check_books(battlefield: Battlefield) -> None:
    expected = dict.fromkeys(range(ACCOUNTS), 0)
    for number in range(RUNS):
        expected[number % 5] -= number + 1
        expected[number % 7] += number + 1
    assert dict(battlefield.runs.rows("SELECT id, balance FROM accounts")) == expected
    entries = [f"{number} {sign}{number + 1}" for number in range(RUNS) for sign in "+-"]
    assert battlefield.ledger() == sorted(entries)
