"""A worker is stopped, its runs are taken by another one, and it goes on: nothing of it counts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from flows import DBConfig, leases
from tests.crash.app import registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.harness import Battlefield, WorkerProcess


class Gate:
    """A named pipe that a process waits at."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        os.mkfifo(self.path)

    def open(self) -> None:
        """Let the process that waits there go on."""
        self.path.write_bytes(b"go")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def freeze_at(battlefield: Battlefield, stage: str, gate: Gate) -> WorkerProcess:
    """Start a worker and stop it at a stage, so that its lease runs out."""
    frozen = battlefield.start(f"{stage}={gate.path}")
    frozen.expect(stage)
    frozen.freeze()
    battlefield.expire_leases()
    return frozen


def memos(battlefield: Battlefield) -> list[tuple[Any, ...]]:
    return battlefield.runs.rows(
        "SELECT step_key, output_json, claim, updated_at FROM flows.steps ORDER BY step_key"
    )


def check_works_again(battlefield: Battlefield, worker: WorkerProcess) -> None:
    """Assert that a worker that lost its lease is registered anew and executes runs."""
    key = battlefield.runs.begin(registry.get("plain"))
    assert battlefield.runs.wait_for(key, "completed").attempts == 0
    # Two by the frozen one, which is live again, and one by whoever took over.
    statement = "SELECT count(*), count(stopped_at) FROM flows.workers WHERE pid = %s"
    assert battlefield.runs.rows(statement, worker.process.pid) == [(2, 1)]


def test_memos_and_outcome_of_a_worker_that_lost_its_run_change_nothing(
    battlefield: Battlefield, gate: Gate
) -> None:
    key = battlefield.runs.begin(registry.get("plain"))
    frozen = freeze_at(battlefield, "first", gate)
    other = battlefield.start()
    battlefield.runs.wait_for(key, "completed")
    before = memos(battlefield)
    assert [claim for _, _, claim, _ in before] == [2, 2]
    other.kill()
    with battlefield.logged("outcomes dropped"), battlefield.logged("registering anew"):
        frozen.thaw()
        gate.open()
    assert memos(battlefield) == before
    assert battlefield.executed() == {"first": 2, "second": 2}
    assert battlefield.column("claim") == [2]
    assert battlefield.column("status") == ["completed"]
    check_works_again(battlefield, frozen)


def test_a_worker_that_lost_its_run_cannot_open_a_transaction_for_it(
    battlefield: Battlefield, gate: Gate
) -> None:
    key = battlefield.runs.begin(registry.get("booked"))
    frozen = freeze_at(battlefield, "first", gate)
    other = battlefield.start()
    battlefield.runs.wait_for(key, "completed")
    other.kill()
    with battlefield.logged("was taken by another worker"):
        frozen.thaw()
        gate.open()
    assert battlefield.ledger() == ["second", "third"]
    # It did not even get to the end of the step that writes.
    assert battlefield.executed() == {"first": 2, "second": 1, "third": 1}
    assert battlefield.column("attempts") == [0]


def test_a_run_stays_with_a_frozen_worker_whose_transaction_is_open(
    battlefield: Battlefield, gate: Gate
) -> None:
    key = battlefield.runs.begin(registry.get("booked"))
    frozen = freeze_at(battlefield, "second", gate)
    rescued = leases.rescue_expired(battlefield.runs.connection, DBConfig())
    assert rescued == 0
    assert battlefield.column("status") == ["running"]
    frozen.thaw()
    gate.open()
    assert battlefield.runs.wait_for(key, "completed").attempts == 0
    assert battlefield.ledger() == ["second", "third"]
    assert battlefield.executed() == {"first": 1, "second": 1, "third": 1}
    assert battlefield.column("claim") == [1]


def test_a_run_leaves_a_frozen_worker_with_the_end_of_its_transaction(
    battlefield: Battlefield, gate: Gate
) -> None:
    key = battlefield.runs.begin(registry.get("booked"))
    frozen = freeze_at(battlefield, "second", gate)
    assert leases.rescue_expired(battlefield.runs.connection, DBConfig()) == 0
    assert battlefield.terminate("flows transaction") == 1
    assert leases.rescue_expired(battlefield.runs.connection, DBConfig()) == 1
    other = battlefield.start()
    battlefield.runs.wait_for(key, "completed")
    other.kill()
    booked = battlefield.ledger()
    with battlefield.logged("outcomes dropped"):
        frozen.thaw()
        gate.open()
    assert battlefield.ledger() == booked == ["second", "third"]
    assert battlefield.column("attempts") == [0]


def test_a_random_value_of_a_worker_that_lost_its_run_is_not_handed_out(
    battlefield: Battlefield, gate: Gate
) -> None:
    key = battlefield.runs.begin(registry.get("charging"))
    frozen = freeze_at(battlefield, "begun", gate)
    other = battlefield.start()
    battlefield.runs.wait_for(key, "completed")
    other.kill()
    with battlefield.logged("was taken by another worker"):
        frozen.thaw()
        gate.open()
    assert battlefield.executed() == {f"charge {battlefield.runs.output(key)}": 1}
