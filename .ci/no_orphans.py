"""Run a command and fail if it leaves a process behind: `no_orphans.py GRACE_S COMMAND...`.

This process adopts every descendant whose parent dies (on Linux, as a child subreaper), whatever
session, group or title it has given itself. So all that is still running when the command has
ended, and the grace in seconds for what is just ending, was left behind: it is named and killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies."""
    if not sys.platform.startswith("linux"):
        print("orphans are only found on Linux: not checked", file=sys.stderr)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run(command: list[str]) -> int:
    """Run a command, reaping adopted orphans meanwhile, and return its exit code."""
    child = os.posix_spawnp(command[0], command, os.environ)

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, pass_on)
    while True:
        # An orphan that nobody reaps would stay a zombie, and tests wait for it to be gone.
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def all_gone_within(grace_s: float) -> bool:
    """Reap what is ending; tell whether nothing is left."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + grace_s
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid:
            continue
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, remaining_s)


def descendants() -> dict[int, str]:
    """Return the command lines of all processes below this one, by pid."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    pending = children.get(os.getpid(), [])
    while pending:
        pid = pending.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ")
            found[pid] = line.decode("utf-8", "replace").strip()
        pending += children.get(pid, [])
    return found


def main() -> int:
    """Run the command line given and return the exit code: the command's, or 1 for a left-over."""
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    adopt_orphans()
    code = run(command)
    if all_gone_within(grace_s):
        return code
    for pid, line in sorted(descendants().items()):
        print(f"left running: {pid} {line}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    all_gone_within(grace_s)
    return code or 1


if __name__ == "__main__":
    sys.exit(main())
