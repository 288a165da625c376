"""Pinned processes: each keeps to a core, and its replacements to the same one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.supervisor import cores
from tests.waiting import wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartSource
    from tests.supervisor.harness import Supervised

APP = """
from flows import Context, Registry

registry = Registry()


@registry.workflow("burn", processes=2, pinned=True)
def burn(wf: Context) -> None:
    pass


@registry.workflow("plain")
def plain(wf: Context) -> None:
    pass
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="cores are Linux's")


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], 2),
        ([2], 5),
        ([2, 5], 7),
        ([None, None, 2], 5),
        ([2, 5, 7], 2),
        ([2, 2, 5, 7, 7], 5),
        ([0, 0], 2),
    ],
)
def test_the_core_that_fewest_keep_to_is_chosen(taken: list[int | None], chosen: int) -> None:
    assert cores.least_used([2, 5, 7], taken) == chosen


def test_where_cores_cannot_be_told_none_is_chosen() -> None:
    assert cores.least_used([], [None]) is None


@linux_only
def test_a_core_that_is_not_there_leaves_the_process_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = os.sched_getaffinity(0)
    cores.keep_to(1023)
    assert os.sched_getaffinity(0) == before
    assert "cannot keep to core 1023" in caplog.text


def pinned(supervised: Supervised, beside: set[int]) -> dict[int, set[int]]:
    """Wait for two processes of `burn` that are not among `beside`; return who uses which cores."""

    def found() -> set[int]:
        said = re.findall(r"worker burn \[\d/2\] started \(pid (\d+), core", supervised.stderr)
        return {int(pid) for pid in said} - beside

    wait_until(lambda: len(found()) == 2, what="two processes are started")
    return {pid: used_by(pid) for pid in found()}


def used_by(pid: int) -> set[int]:
    """Return the cores that any thread of a process may use."""

    def threads() -> list[int]:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]

    wait_until(lambda: len(threads()) > 1, what="it is at work")
    used: set[int] = set()
    for thread in threads():
        with contextlib.suppress(ProcessLookupError):
            # One may have ended meanwhile.
            used |= os.sched_getaffinity(thread)
    return used


@linux_only
@pytest.mark.skipif(len(cores.available()) < 2, reason="one core")
def test_each_process_has_a_core_of_its_own_which_its_successor_takes_over(
    supervise: StartSource,
) -> None:
    supervised = supervise(APP)
    supervised.expect_said("worker plain ready")
    first = pinned(supervised, set())
    assert sorted(map(len, first.values())) == [1, 1]
    assert set().union(*first.values()) == set(cores.available()[:2])
    plain = int(re.findall(r"worker plain started \(pid (\d+)\)", supervised.stderr)[0])
    assert used_by(plain) == set(cores.available())

    supervised.send(signal.SIGHUP)
    second = pinned(supervised, set(first))
    assert sorted(map(sorted, second.values())) == sorted(map(sorted, first.values()))
    for pid in first:
        wait_until_gone(pid, what="the process before it")

    killed, left = second
    os.kill(killed, signal.SIGKILL)
    third = pinned(supervised, {*first, killed})
    del third[left]
    assert list(third.values()) == [second[killed]]
