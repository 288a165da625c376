"""Waiting: what ends a wait, and that no wake-up is lost."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from flows.clock import WakeUp, monotonic

if TYPE_CHECKING:
    from collections.abc import Iterator

SELECT_LIMIT = 1024


@pytest.fixture
def wake_up() -> Iterator[WakeUp]:
    wake_up = WakeUp()
    yield wake_up
    wake_up.close()


@pytest.fixture
def high_fd() -> Iterator[int]:
    """The read end of a pipe, numbered beyond what select can watch, with a byte in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= SELECT_LIMIT:
        pytest.skip("this system gives a process no descriptor from 1024 on")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, SELECT_LIMIT + 8), hard))
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x")
    high = fcntl.fcntl(read_fd, fcntl.F_DUPFD, SELECT_LIMIT)
    yield high
    for fd in (read_fd, write_fd, high):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_wake_up_before_the_wait_ends_it_at_once(wake_up: WakeUp) -> None:
    wake_up.set()
    wake_up.set()
    began = monotonic()
    assert wake_up.wait(10.0) is False
    assert monotonic() - began < 5.0


def test_a_wake_up_is_used_up_by_one_wait(wake_up: WakeUp) -> None:
    wake_up.set()
    wake_up.wait(10.0)
    began = monotonic()
    wake_up.wait(0.02)
    assert monotonic() - began >= 0.02


def test_a_wake_up_from_another_thread_ends_the_wait(wake_up: WakeUp) -> None:
    waker = threading.Thread(target=wake_up.set)
    waker.start()
    began = monotonic()
    wake_up.wait(None)
    assert monotonic() - began < 5.0
    waker.join()


def test_a_wait_tells_whether_a_descriptor_can_be_read(wake_up: WakeUp) -> None:
    read_fd, write_fd = os.pipe()
    assert wake_up.wait(0.0, read_fd) is False
    os.write(write_fd, b"x")
    assert wake_up.wait(10.0, read_fd) is True
    wake_up.set()
    assert wake_up.wait(10.0, read_fd) is True
    os.close(read_fd)
    os.close(write_fd)


def test_a_process_may_have_more_than_1024_descriptors(wake_up: WakeUp, high_fd: int) -> None:
    assert wake_up.wait(10.0, high_fd) is True


def test_a_wait_of_many_years_can_be_ended(wake_up: WakeUp) -> None:
    wake_up.set()
    assert wake_up.wait(1e12) is False


def test_a_wake_up_that_comes_after_the_end_does_nothing() -> None:
    wake_up = WakeUp()
    wake_up.close()
    wake_up.set()
