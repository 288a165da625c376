"""Blame: whose runs a death is charged to, and what it is called."""

from __future__ import annotations

import signal
import socket
import uuid
from typing import Any

import pytest

from flows.board import BoardState, Executing
from flows.crashes import Suspect
from flows.supervisor.blame import blame, cause_of
from flows.supervisor.exits import ExitCode
from flows.supervisor.fleet import Member
from flows.supervisor.happenings import ChildProcess, Died
from flows.supervisor.messages import Channel, Refused

WORKER_ID = uuid.UUID(int=7)
BUSY = BoardState(1.0, 0.0, (Executing("a", 4, 1, 0.5, "trace/v1", 0.6), None), 9)
IDLE = BoardState(1.0, 0.0, (None, None), 9)


@pytest.fixture
def child() -> Any:
    """A process, as far as it matters here."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ChildProcess(99, Channel(ours), None)


@pytest.fixture
def member(child: ChildProcess) -> Member:
    """A worker process."""
    return Member("worker render", child, "render", WORKER_ID)


def blamed(member: Member, code: int, last: BoardState | None = BUSY, **how: Any) -> Any:
    """Return what a death is charged with."""
    options = {"max_crashes": 3, "is_oom": False, "stopping": False, **how}
    return blame(member, Died(member.child, code, 1.0, last), **options)


def test_the_runs_that_were_executed_are_suspects(member: Member) -> None:
    charge = blamed(member, -signal.SIGSEGV)
    assert charge.suspects == (Suspect("a", 4, "trace/v1"),)
    assert charge.cause == "SIGSEGV"
    assert (charge.worker_id, charge.pid) == (WORKER_ID, 99)
    assert charge.max_crashes == 3


@pytest.mark.parametrize("last", [IDLE, None])
def test_nobody_is_charged_where_nothing_was_executed(
    member: Member, last: BoardState | None
) -> None:
    assert blamed(member, -signal.SIGSEGV, last) is None


def test_maintenance_has_no_runs(child: ChildProcess) -> None:
    assert blamed(Member("maintenance", child), -signal.SIGSEGV) is None


def test_nobody_is_charged_where_the_process_has_said_what_is_wrong(member: Member) -> None:
    member.refused = Refused(ExitCode.LEASE_LOST, "the lease ran out")
    assert blamed(member, ExitCode.LEASE_LOST) is None


def test_nobody_is_charged_for_a_process_that_was_killed_to_stop_at_once(member: Member) -> None:
    member.spared = True
    assert blamed(member, -signal.SIGKILL) is None


def test_a_process_that_ends_as_it_was_told_to_has_not_crashed(member: Member) -> None:
    assert blamed(member, 0, stopping=True) is None
    member.finishing = True
    assert blamed(member, 0) is None
    member.finishing, member.leaving = False, "replaced"
    assert blamed(member, 0) is None


def test_a_crash_while_finishing_is_a_crash(member: Member) -> None:
    assert blamed(member, -signal.SIGSEGV, stopping=True) is not None
    member.leaving = "replaced"
    assert blamed(member, 3) is not None


def test_an_exit_that_nobody_asked_for_is_a_crash_with_code_0_too(member: Member) -> None:
    assert blamed(member, 0).cause == "exit code 0"


def test_causes_have_names() -> None:
    assert cause_of(3) == "exit code 3"
    assert cause_of(-11) == "SIGSEGV"
    assert cause_of(-9) == "SIGKILL"
    assert cause_of(-9, is_oom=True) == "SIGKILL (out of memory)"
    assert cause_of(-9, killed_for="no Python has run for 9 s") == (
        "SIGKILL (no Python has run for 9 s)"
    )
    assert cause_of(-200) == "signal 200"
