"""A worker is killed at every point of a run that uses every primitive: nothing shows of it.

CI kills at every point for one codec, and at some, drawn by a seed that is printed, for the others.
FLOWS_EVERY_POINT=1 kills at every point for all of them; FLOWS_SEED=N draws the same points again.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from flows import leases
from tests.crash.gauntlet import Gauntlet
from tests.crash.journey import CODECS, COMMITS, Parcel, Receipt, registry, workflow_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Runs

AMOUNT = Decimal("7.50")
SAMPLE = 6
EVERYWHERE = os.environ.get("FLOWS_EVERY_POINT") == "1"
SEED = int(os.environ.get("FLOWS_SEED") or secrets.randbits(32))

STEPS = """
    SELECT r.codec, s.step_key, s.status, s.attempts, s.output_json::text, s.output_bytes, s.codec
    FROM flows.steps AS s JOIN flows.runs AS r USING (workflow_name_shard, run_id)
    ORDER BY s.step_key
"""
WAITS = """
    SELECT wait_key, wait_type, event_name, satisfied_at IS NULL, payload_json::text,
           payload_bytes, codec
    FROM flows.waits ORDER BY wait_key
"""
RANDOM = "SELECT run_id, rand_key, kind, value_text, value_bigint FROM flows.random ORDER BY kind"
SESSIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE %s
"""
LEDGER = "SELECT entry, count(*), sum(amount), count(DISTINCT run_id) FROM ledger GROUP BY entry"


@dataclass(frozen=True)
class Traces:
    """What a run and the run that it has begun have left behind, but for what differs each time.

    Attributes:
        runs: state, failed attempts, crashes, error and codecs of both.
        receipt: what the run returned, without what was random.
        is_as_memoized: whether what was random is what its memos say.
        steps: memos of steps.
        waits: memos of waits.
        randoms: keys and kinds of random values.
        ledger: by entry, how many rows, their sum, and of how many runs.
    """

    runs: list[tuple[Any, ...]]
    receipt: Receipt
    is_as_memoized: bool
    steps: list[tuple[Any, ...]]
    waits: list[tuple[Any, ...]]
    randoms: list[tuple[str, str]]
    ledger: dict[str, tuple[Any, ...]]


@pytest.fixture
def gauntlet(runs: Runs) -> Iterator[Gauntlet]:
    runs.connection.execute("CREATE TABLE ledger (run_id uuid, entry text, amount numeric)")
    with Gauntlet(runs.dsn) as gauntlet:
        yield gauntlet


class Trials:
    """Runs of one workflow, each disturbed once at most."""

    def __init__(self, runs: Runs, gauntlet: Gauntlet, codec: str, commit: str) -> None:
        self._runs = runs
        self._gauntlet = gauntlet
        self._workflow = workflow_of(codec, commit)

    def undisturbed(self) -> tuple[list[str], Traces]:
        """Return the points of an undisturbed run, and its traces."""
        key = self._begin()
        passage = self._gauntlet.send(self._workflow, uuid.uuid4(), self._is_done, None)
        return passage.points, self._traces(key)

    def killed_at(self, number: int) -> tuple[str | None, Traces]:
        """Kill a worker at a point, and have another one end what it has left.

        Returns:
            What the point is, None if the run has completed before; and its traces.
        """
        key = self._begin()
        worker_id = uuid.uuid4()
        passage = self._gauntlet.send(self._workflow, worker_id, self._is_done, number)
        point = passage.points[-1] if passage.is_over else None
        if point is not None:
            # As the maintenance process of a supervisor does.
            leases.release_worker(self._runs.connection, self._runs.config, worker_id)
        memoized = self._memoized()
        print(f"killed {number}: {point}")  # noqa: T201  shown where the test fails
        reached = self._gauntlet.send_past(self._workflow, uuid.uuid4(), self._is_done)
        again = {step for step in memoized if f"step {step} begins" in reached}
        assert not again, f"memoized and executed again: {again}, after a kill {point}"
        return point, self._traces(key)

    def _begin(self) -> Any:
        # What the worker before has sent last, a claim perhaps, must not come to this run.
        wait_until(lambda: not self._runs.rows(SESSIONS, "flows %"), what="no worker is connected")
        with self._runs.connection.transaction():
            for table in ("ledger", "flows.workers", "flows.runs"):
                self._runs.connection.execute(f"DELETE FROM {table}")
        return self._runs.begin(registry.get(self._workflow), Parcel(AMOUNT))

    def _is_done(self) -> bool:
        """Whether both runs have completed; fails where one has failed."""
        states = [state for (state,) in self._runs.rows("SELECT status FROM flows.runs")]
        assert "failed" not in states, self._runs.rows("SELECT error_text FROM flows.runs")
        return len(states) >= 2 and set(states) == {"completed"}

    def _memoized(self) -> set[str]:
        rows = self._runs.rows("SELECT step_key FROM flows.steps WHERE status = 'completed'")
        return {step for (step,) in rows}

    def _traces(self, key: Any) -> Traces:
        rows = self._runs.rows
        receipt = self._runs.output(key, Receipt)
        randoms = rows(RANDOM)
        memos = {
            kind: (text, number) for run, _, kind, text, number in randoms if run == key.run_id
        }
        is_as_memoized = str(receipt.uid) == memos["uuidv7"][0] and receipt.salt == memos["uint64"][
            1
        ] % (1 << 64)
        return Traces(
            runs=rows(
                "SELECT status, attempts, crashes, error_text, codec, output_codec FROM flows.runs"
            ),
            receipt=replace_random(receipt),
            is_as_memoized=is_as_memoized,
            steps=rows(STEPS),
            waits=rows(WAITS),
            randoms=sorted((name, kind) for _, name, kind, _, _ in randoms),
            ledger={entry: tuple(rest) for entry, *rest in rows(LEDGER)},
        )


def replace_random(receipt: Receipt) -> Receipt:
    return Receipt(receipt.price, uuid.UUID(int=0), 0, receipt.tries, receipt.answer)


def check_undisturbed(traces: Traces, codec: str) -> None:
    """Assert that a run that nobody has disturbed has left what it is to leave."""
    stored = None if codec == "json" else codec
    assert traces.runs == [("completed", 0, 0, None, stored, stored)] * 2
    assert traces.receipt == Receipt(AMOUNT * 2, uuid.UUID(int=0), 0, 2, 70)
    assert traces.is_as_memoized
    assert [(key, tries) for _, key, _, tries, *_ in traces.steps] == [
        ("ask/v1", 1),
        ("book/v1", 1),
        ("close/v1", 1),
        ("price/v1", 1),
        ("publish/v1", 1),
        ("retried/v1", 2),
    ]
    assert [wait[:4] for wait in traces.waits] == [
        ("answer/v1", "event", "answer", False),
        ("nap/v1", "sleep", None, False),
    ]
    assert traces.randoms == [("salt/v1", "uint64"), ("uid/v1", "uuidv7"), ("uid/v1", "uuidv7")]
    assert traces.ledger == {
        "booked": (1, AMOUNT, 1),
        "retried": (1, Decimal(2), 1),
        "asked": (1, Decimal(0), 1),
        "answered": (1, AMOUNT, 1),
        "closed": (1, -AMOUNT, 1),
    }


def kill_everywhere(trials: Trials, expected: Traces) -> int:
    """Kill at one point after the other until a run completes before; return how many."""
    for number in itertools.count(1):
        point, traces = trials.killed_at(number)
        assert traces == expected, f"killed {point}"
        if point is None:
            return number - 1
    raise AssertionError


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("codec", CODECS)
def test_a_kill_at_any_point_changes_nothing(
    runs: Runs, gauntlet: Gauntlet, codec: str, commit: str
) -> None:
    trials = Trials(runs, gauntlet, codec, commit)
    points, expected = trials.undisturbed()
    check_undisturbed(expected, codec)
    if EVERYWHERE or codec == "json":
        assert kill_everywhere(trials, expected) > 100
        return
    print(f"FLOWS_SEED={SEED}")  # noqa: T201  shown where the test fails
    chosen = random.Random(f"{SEED} {codec} {commit}").sample(range(1, len(points) + 1), SAMPLE)
    for number in chosen:
        point, traces = trials.killed_at(number)
        assert traces == expected, f"killed {point}"
