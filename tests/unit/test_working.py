"""What a worker process shows before its worker begins."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from flows.supervisor import working


class Board:
    def __init__(self) -> None:
        self.beats: list[float] = []

    def beat(self, database_since_s: float) -> None:
        self.beats.append(database_since_s)

    def read(self) -> Any:
        return SimpleNamespace(busy=0, executing=())


class AtOnce(threading.Thread):
    """Runs in the thread that starts it: as if no other got a turn."""

    def start(self) -> None:
        self.run()


def test_a_sign_of_life_is_given_before_a_run_can_stop_the_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board, shown = Board(), list[float]()
    ready = threading.Event()
    ready.set()
    worker: Any = SimpleNamespace(run=lambda: shown.extend(board.beats), ready=ready)
    end: Any = SimpleNamespace(board=board, watch=lambda _fd: None)
    monkeypatch.setattr("flows.supervisor.working.threading.Thread", AtOnce)
    working._Watch(end, None).run(worker, 1.0)
    assert shown == [0.0]
