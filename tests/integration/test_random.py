"""Random values: drawn once, committed before they are seen, the same at every replay."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from flows import Context, Registry

if TYPE_CHECKING:
    from tests.running import Runs

RANDOM = "SELECT rand_key, kind, value_text, value_bigint FROM flows.random ORDER BY rand_key"


def drawing(runs: Runs, *, with_transaction: bool = False) -> tuple[Registry, Any, list[Any]]:
    """Return a workflow that draws, looks at what others see then, waits, and draws again."""
    registry = Registry()
    seen: list[Any] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        if with_transaction:
            wf.tx.execute("SELECT 1")
        seen.append((wf.random_uuidv7("uid/v1"), wf.random_uint64("salt/v1"), runs.rows(RANDOM)))
        wf.wait_for_event("go/v1", "Go")

    return registry, demo, seen


@pytest.mark.parametrize("with_transaction", [False, True])
def test_a_random_value_is_the_same_on_every_replay(runs: Runs, with_transaction: bool) -> None:
    registry, demo, seen = drawing(runs, with_transaction=with_transaction)
    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert runs.status(key).status == "completed"
    (uid, salt, _), replayed = seen
    assert replayed[:2] == (uid, salt)
    assert isinstance(uid, UUID)
    assert uid.version == 7
    assert 0 <= salt < 2**64


@pytest.mark.parametrize("with_transaction", [False, True])
def test_a_random_value_is_committed_before_it_is_returned(
    runs: Runs, with_transaction: bool
) -> None:
    registry, demo, seen = drawing(runs, with_transaction=with_transaction)
    runs.execute(registry, demo)
    [(uid, salt, rows)] = seen
    signed = salt - 2**64 if salt >= 2**63 else salt
    assert rows == [("salt/v1", "uint64", None, signed), ("uid/v1", "uuidv7", str(uid), None)]


def test_a_random_value_outlives_a_transaction_that_is_undone(runs: Runs) -> None:
    registry = Registry()
    seen: list[UUID] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        wf.tx.execute("CREATE TABLE undone ()")
        seen.append(wf.random_uuidv7("uid/v1"))
        wf.tx.execute("SELECT 1 / 0")

    runs.execute(registry, demo)
    assert runs.rows("SELECT to_regclass('undone')") == [(None,)]
    assert runs.rows(RANDOM) == [("uid/v1", "uuidv7", str(seen[0]), None)]


@pytest.mark.parametrize("number", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_number_of_64_bits_comes_back(
    runs: Runs, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "randbits", lambda bits: number)
    registry, demo, seen = drawing(runs)
    key = runs.execute(registry, demo)
    monkeypatch.undo()
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert [salt for _, salt, _ in seen] == [number, number]


def test_keys_and_runs_draw_for_themselves(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> list[int]:
        return [wf.random_uint64(key) for key in ("a", "b", "a")]

    outputs = [runs.output(runs.execute(registry, demo)) for _ in range(2)]
    (a, b, again), (other, _, _) = outputs
    assert a == again
    assert len({a, b, other}) == 3


def test_a_random_value_is_a_fit_input_of_a_step(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> UUID:
        return wf.execute("pay/v1", same, wf.random_uuidv7("uid/v1"))

    def same(uid: UUID) -> UUID:
        return uid

    key = runs.execute(registry, demo)
    [(_, _, text, _)] = runs.rows(RANDOM)
    assert runs.output(key, UUID) == UUID(text)
