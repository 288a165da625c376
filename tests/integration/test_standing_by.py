"""Executors that would be of no help stand by, and come as soon as they would be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from flows import Context, Registry, executor
from flows.pace import Pace
from tests.waiting import DEADLINE_S, wait_until

if TYPE_CHECKING:
    from tests.running import Runs

EXECUTORS = 4
SOON_S = 10.0
"""Before the dispatcher looks for what it has not been told of, and wakes everybody."""


class Told(Pace):
    """Says what it is told to say.

    Attributes:
        is_helpless: whether nobody is of any help.
        was_asked: set once somebody has asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_helpless = True
        self.was_asked = threading.Event()

    def is_kept(self, now_s: float, cpu_s: float, began_s: float) -> bool:
        """Say so."""
        assert began_s > 0, "somebody stands by although nobody has begun a run"
        self.was_asked.set()
        return self.is_helpless


class Stage:
    """A workflow whose runs come in and wait for each other, linger or leave at once."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.together = threading.Barrier(EXECUTORS)
        self.has_come = threading.Event()
        self.may_go = threading.Event()
        self._lock = threading.Lock()
        self._inside = self.most = 0

        @self.registry.workflow("demo", concurrency=EXECUTORS)
        def demo(wf: Context, what: str) -> None:
            with self._lock:
                self._inside += 1
                self.most = max(self.most, self._inside)
            if what == "together":
                self.together.wait(SOON_S)
            elif what == "gate":
                self.has_come.set()
                assert self.may_go.wait(DEADLINE_S)
            elif what == "linger":
                # Long enough for another one to come in, if it could.
                threading.Event().wait(0.005)
            with self._lock:
                self._inside -= 1


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Told:
    pace = Told()
    monkeypatch.setattr(executor, "Pace", lambda: pace)
    return pace


def test_where_others_would_be_of_no_help_one_does_it_all(runs: Runs, pace: Told) -> None:
    stage = Stage()
    keys = runs.client.begin_many_tx(runs.connection, "demo", ["linger"] * 20)
    runs.start(stage.registry)
    for key in keys:
        runs.wait_for(key, "completed")
    assert stage.most == 1


def test_one_that_stands_by_looks_again_and_has_all_the_others_come(runs: Runs, pace: Told) -> None:
    stage = Stage()
    keys = runs.client.begin_many_tx(runs.connection, "demo", ["together"] * EXECUTORS)
    runs.start(stage.registry)
    wait_until(lambda: stage.together.n_waiting, what="one has come")
    pace.is_helpless = False
    for key in keys:
        runs.wait_for(key, "completed")
    assert stage.most == EXECUTORS


def test_a_run_that_comes_when_nobody_runs_does_not_wait_for_the_one_that_stands_by(
    runs: Runs, pace: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "HOLD_S", 60 * SOON_S)
    stage = Stage()
    keys = [runs.begin("demo", "gate")]
    runs.start(stage.registry)
    assert stage.has_come.wait(DEADLINE_S)
    # Another one stands by for the second run, which the first one takes when it is done.
    keys.append(runs.begin("demo", "leave"))
    assert pace.was_asked.wait(DEADLINE_S)
    stage.may_go.set()
    for key in keys:
        runs.wait_for(key, "completed")
    runs.wait_for(runs.begin("demo", "leave"), "completed", timeout_s=SOON_S)
