"""Pace: when one more executor would be of no help."""

from __future__ import annotations

import pytest

from flows.pace import HOLD_S, SHORT_S, Pace


class Load:
    """A steady load, in looks of 10 ms."""

    def __init__(self, took_s: float, cores: float, *, since_begun_s: float = 0.0001) -> None:
        """A run takes so long, and all of the process so much of the processor."""
        self.pace = Pace()
        self.now_s = self.cpu_s = 0.0
        self.took_s, self.cores, self.since_begun_s = took_s, cores, since_begun_s

    def look(self, *, ended: int = 100) -> bool:
        """Let time pass in which so many runs end, and look."""
        self.now_s += 0.01
        self.cpu_s += 0.01 * self.cores
        for _ in range(ended):
            self.pace.ended(self.took_s)
        return self.pace.is_kept(self.now_s, self.cpu_s, self.now_s - self.since_begun_s)


def test_short_runs_that_keep_the_interpreter_busy_need_no_help() -> None:
    load = Load(SHORT_S / 4, cores=0.9)
    assert [load.look() for _ in range(10)] == [True] * 10


@pytest.mark.parametrize(
    "load",
    [
        pytest.param(Load(SHORT_S / 4, cores=0.5), id="short ones that leave time"),
        pytest.param(Load(SHORT_S * 2, cores=0.9), id="longer ones"),
        pytest.param(Load(0.0001, cores=0.9, since_begun_s=1.0), id="the last one goes on"),
    ],
)
def test_others_do(load: Load) -> None:
    assert [load.look() for _ in range(10)] == [False] * 10


def test_nothing_is_known_at_first() -> None:
    assert not Load(SHORT_S / 4, cores=1.0).look(ended=0)


def test_a_few_that_take_longer_change_nothing() -> None:
    load = Load(SHORT_S / 4, cores=0.9)
    load.look()
    for _ in range(10):
        load.pace.ended(1.0)
        assert load.look(ended=5)


def test_a_process_that_falls_idle_is_noticed_at_the_next_look() -> None:
    load = Load(SHORT_S / 4, cores=0.9)
    assert load.look()
    assert not load.pace.is_kept(load.now_s + 2 * HOLD_S, load.cpu_s, load.now_s + HOLD_S)


def test_between_two_looks_the_last_answer_stands() -> None:
    load = Load(SHORT_S / 4, cores=0.9)
    assert load.look()
    assert load.pace.is_kept(load.now_s + HOLD_S / 2, load.cpu_s, load.now_s)
