"""Blame: which runs a death is charged to, and what is called its cause. Pure policy.

executed when the process crashed            suspects: one of them may have ended it
claimed and not begun, or outcome on its way  innocent
the process was told to end, or to hurry      innocent, all of them
it has said itself why it cannot go on        innocent: the database is away, the lease lost
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from flows.crashes import Charge, Suspect

if TYPE_CHECKING:
    from flows.supervisor.fleet import Member
    from flows.supervisor.happenings import Died

__all__ = ["blame", "cause_of", "is_crash"]


def is_crash(member: Member, died: Died, *, stopping: bool) -> bool:
    """Tell whether a worker has ended unasked, and not because it cannot work.

    Args:
        member: the process.
        died: its death.
        stopping: whether it was asked to end with all others.
    """
    is_told = stopping or member.finishing or member.leaving is not None
    return member.refused is None and not member.spared and not (died.code == 0 and is_told)


def blame(
    member: Member, died: Died, *, max_crashes: int, is_oom: bool, stopping: bool
) -> Charge | None:
    """Return what the runs of a dead process are charged with, None if nobody is.

    Args:
        member: the process.
        died: its death.
        max_crashes: of its workflow.
        is_oom: whether the kernel has killed it for want of memory.
        stopping: whether it was asked to end.
    """
    if member.worker_id is None or died.last is None:
        return None
    if not is_crash(member, died, stopping=stopping):
        return None
    suspects = tuple(
        Suspect(each.run_id, each.claim, each.step)
        for each in died.last.executing
        if each is not None
    )
    if not suspects:
        return None
    cause = cause_of(died.code, killed_for=member.killed_for, is_oom=is_oom)
    return Charge(member.worker_id, died.child.pid, cause, suspects, max_crashes)


def cause_of(code: int, *, killed_for: str | None = None, is_oom: bool = False) -> str:
    """Return what a death is called, as in "SIGKILL (out of memory)" or "exit code 3".

    Args:
        code: the exit code, or the negative number of the signal.
        killed_for: why the supervisor has killed the process, None if it has not.
        is_oom: whether the kernel has.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = killed_for or ("out of memory" if is_oom else None)
    return f"{name} ({why})" if why else name
