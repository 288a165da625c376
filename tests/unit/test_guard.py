"""The guard: user code is ended at once, engine code never, and the next call not at all."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import flows.guard
from flows.clock import monotonic
from flows.guard import Guard, Window
from flows.suspension import GivenUp, TimeUp
from flows.timekeeper import Timekeeper
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REASON = RuntimeError("it must end")


@pytest.fixture
def timekeeper() -> Iterator[Timekeeper]:
    timekeeper = Timekeeper(logging.getLogger("test"))
    yield timekeeper
    timekeeper.stop()


class Thread:
    """A guarded thread of a test, and what came of it."""

    def __init__(self, act: Callable[[Guard], Any]) -> None:
        self.guard: Guard
        self.result: Any = None
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self, act: Callable[[Guard], Any]) -> None:
        self.guard = Guard()
        self._ready.set()
        try:
            self.result = act(self.guard)
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.error = error

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def for_ever(running: threading.Event) -> None:
    running.set()
    while True:
        pass


def test_code_that_never_ends_is_ended_where_it_is() -> None:
    running = threading.Event()
    thread = Thread(lambda guard: guard.call(for_ever, running))
    assert running.wait(10)
    thread.guard.end(REASON)
    thread.join()
    assert isinstance(thread.error, TimeUp)
    assert thread.guard.reason is REASON
    trace, names = thread.error.__traceback__, []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "for_ever" in names


def test_code_that_returns_in_time_is_left_alone() -> None:
    guard = Guard()
    assert guard.call(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ValueError, match="mine"):
        guard.call(int, "mine")
    assert guard.reason is None


def test_code_that_swallows_its_end_has_ended_all_the_same() -> None:
    running, swallowed = threading.Event(), threading.Event()

    def stubborn() -> str:
        try:
            for_ever(running)
        except BaseException:  # noqa: BLE001  as careless user code does
            swallowed.set()
        return "well"

    thread = Thread(lambda guard: guard.call(stubborn))
    assert running.wait(10)
    thread.guard.end(REASON)
    thread.join()
    assert swallowed.is_set()
    assert isinstance(thread.error, TimeUp)


def test_code_that_makes_another_error_of_its_end_has_ended_all_the_same() -> None:
    running = threading.Event()

    def stubborn() -> None:
        try:
            for_ever(running)
        except BaseException as error:
            raise ValueError("what now") from error

    thread = Thread(lambda guard: guard.call(stubborn))
    assert running.wait(10)
    thread.guard.end(REASON)
    thread.join()
    assert isinstance(thread.error, TimeUp)


def test_an_end_that_was_swallowed_is_told_again() -> None:
    running, again = threading.Event(), threading.Event()

    def stubborn() -> None:
        try:
            for_ever(running)
        except TimeUp:
            for_ever(again)

    thread = Thread(lambda guard: guard.call(stubborn))
    assert running.wait(10)
    thread.guard.end(REASON)
    assert again.wait(10)
    thread.guard.press(thread.guard.window, again=True)
    thread.join()
    assert isinstance(thread.error, TimeUp)


def test_engine_code_is_not_ended_but_what_called_it_is() -> None:
    inside, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def code(guard: Guard) -> None:
        guard.enter()
        try:
            inside.set()
            assert go_on.wait(10)
            done.append("engine code")
        finally:
            guard.leave()
        done.append("user code")

    thread = Thread(lambda guard: guard.call(code, guard))
    assert inside.wait(10)
    thread.guard.end(REASON)
    go_on.set()
    thread.join()
    assert isinstance(thread.error, TimeUp)
    assert done == ["engine code"]


def test_code_that_must_end_gets_nothing_more_done() -> None:
    guard = Guard()
    refused: list[int] = []

    def code() -> None:
        guard.enter()
        guard.end(REASON)
        with contextlib.suppress(TimeUp):
            guard.leave()
        for number in range(3):
            try:
                guard.enter()
            except TimeUp:
                refused.append(number)

    with pytest.raises(TimeUp):
        guard.call(code)
    assert refused == [0, 1, 2]


def test_a_reason_given_before_the_code_is_called_keeps_it_from_running() -> None:
    guard = Guard()
    guard.end(REASON)
    called: list[int] = []
    with pytest.raises(TimeUp):
        guard.call(called.append, 1)
    window = Window()
    with pytest.raises(TimeUp):
        guard.call_within(window, called.append, 2)
    assert (called, window.reason) == ([], REASON)


def test_the_end_of_a_window_is_not_that_of_the_next() -> None:
    guard, window = Guard(), Window()

    def code() -> None:
        guard.end_within(window, REASON)
        while True:
            pass

    with pytest.raises(TimeUp):
        guard.call_within(window, code)
    assert guard.reason is None
    assert guard.call(lambda: "next") == "next"
    guard.press(window, again=True)
    assert guard.call_within(Window(), lambda: "next") == "next"
    assert not guard.give_up(window)


def test_code_in_a_call_that_does_not_return_is_given_up() -> None:
    read_fd, write_fd = os.pipe()
    running = threading.Event()

    def code() -> bytes:
        running.set()
        return os.read(read_fd, 1)

    thread = Thread(lambda guard: guard.call(code))
    assert running.wait(10)
    thread.guard.end(REASON)
    assert "in code" in thread.guard.stack()
    assert thread.guard.give_up(thread.guard.window)
    os.write(write_fd, b"!")
    thread.join()
    assert isinstance(thread.error, GivenUp)
    os.close(read_fd)
    os.close(write_fd)


def test_engine_code_is_not_given_up() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def code(guard: Guard) -> None:
        guard.enter()
        try:
            inside.set()
            assert go_on.wait(10)
        finally:
            guard.leave()

    thread = Thread(lambda guard: guard.call(code, guard))
    assert inside.wait(10)
    thread.guard.end(REASON)
    assert not thread.guard.give_up(thread.guard.window)
    go_on.set()
    thread.join()
    assert isinstance(thread.error, TimeUp)


def test_a_block_that_garbage_collection_ends_elsewhere_changes_nothing() -> None:
    guard = Guard()
    assert not guard.enter_again()

    def code() -> None:
        assert guard.enter_again()
        guard.leave()

    guard.call(code)
    elsewhere: list[bool] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: elsewhere.append(guard.enter_again()))
        thread.start()
        thread.join()

    guard.call(look)
    assert elsewhere == [False]


def test_an_exception_that_is_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    running, taken, go_on, settled = (threading.Event() for _ in range(4))
    raise_in = flows.guard._raise_in

    def slowly(thread_id: int, what: type[BaseException]) -> None:
        taken.set()
        assert go_on.wait(10)
        raise_in(thread_id, what)

    def code() -> None:
        running.set()
        assert taken.wait(10)

    def act(guard: Guard) -> str:
        with contextlib.suppress(TimeUp):
            guard.call(code)
        settled.set()
        return "".join(str(number) for number in range(10))

    monkeypatch.setattr(flows.guard, "_raise_in", slowly)
    thread = Thread(act)
    assert running.wait(10)
    sender = threading.Thread(target=thread.guard.end, args=(REASON,))
    sender.start()
    assert taken.wait(10)
    assert not settled.wait(0.1)
    go_on.set()
    thread.join()
    sender.join(10)
    assert (thread.error, thread.result) == (None, "0123456789")


class Hammered:
    """A thread whose thousands of short calls are ended at random moments."""

    def __init__(self, timekeeper: Timekeeper, calls: int, seed: int) -> None:
        self._timekeeper = timekeeper
        self._calls = calls
        self._random = random.Random(seed)
        self.returned = self.ended = self.leaked = self.torn = 0
        self._is_inside = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        guard = Guard()
        # On a quick machine hardly any call is still there when its time is up.
        while self.returned + self.ended < self._calls or not min(self.returned, self.ended):
            try:
                self._call(guard)
                # What a late delivery would hit.
                sum(index for index in range(40))
            except TimeUp:
                self.leaked += 1

    def _call(self, guard: Guard) -> None:
        window = Window()
        at_s = monotonic() + self._random.random() * 1e-3
        alarm = self._timekeeper.call_at(at_s, lambda: guard.end_within(window, REASON))
        try:
            guard.call_within(window, self._work, guard)
            self.returned += 1
        except TimeUp:
            self.ended += 1
        self.torn += self._is_inside
        self._is_inside = False
        self._timekeeper.drop(alarm)

    def _work(self, guard: Guard) -> None:
        for _ in range(self._random.randrange(60)):
            sum(index for index in range(self._random.randrange(400)))
            guard.enter()
            try:
                self._is_inside = True
                sum(index for index in range(20))
                self._is_inside = False
            finally:
                guard.leave()


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Have threads take turns within a call, and in the middle of the engine's own code."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(20e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Keep the collector from what other tests have left: it calls their callbacks, in Python.

    What is raised there is reported and ignored. An attempt is pressed a second time then; the
    calls here are too short for that.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("quick_turns", "no_collector")
def test_thousands_of_short_calls_are_ended_and_nothing_reaches_the_next(
    timekeeper: Timekeeper,
) -> None:
    calls = 3000
    hammered = [Hammered(timekeeper, calls, seed) for seed in range(4)]
    for each in hammered:
        each.thread.start()
    wait_until(
        lambda: not any(each.thread.is_alive() for each in hammered),
        what="all calls are over",
        timeout_s=90,
    )
    for each in hammered:
        assert each.returned + each.ended >= calls
        assert (each.leaked, each.torn) == (0, 0)
