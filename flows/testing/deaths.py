"""Processes that die at a step: forked from the test, and killed by themselves.

An exception would be recorded like any other, and a thread cannot die: so a process executes runs
until the step is reached, and sends itself SIGKILL. What it has done by then it writes to a file,
which is read when it is dead: a pipe might be full, or held open by a process of the step's own.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import traceback
import uuid
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from flows.ids import RunKey
from flows.supervisor.child import die_with_parent
from flows.testing.watching import settle, watched
from flows.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.config import DBConfig
    from flows.context import Context
    from flows.registry import Registry

__all__ = ["Death", "Doom", "die"]


class Death(NamedTuple):
    """What a process that died has left.

    Attributes:
        worker_id: of its worker.
        pid: of the process.
        run: the run in whose step it died, None where none came to it.
        executed: the steps it has called, each with its run; the one it died in too.
        why: what happened instead, where none came to it.
    """

    worker_id: uuid.UUID
    pid: int
    run: RunKey | None
    executed: list[tuple[RunKey, str]]
    why: str


class Doom(NamedTuple):
    """Where a process is to die.

    Attributes:
        step_key: in which step.
        before: before the step's function is called, and not when it has returned.
        limit: attempts after which it gives up.
    """

    step_key: str
    before: bool
    limit: int


def die(doom: Doom, registry: Registry, dsn: str, config: DBConfig) -> Death:
    """Fork a process that executes runs until it dies, and wait for that.

    No worker may be open in this process: its threads would hold locks that the copy never gets.
    """
    worker_id, parent_pid = uuid.uuid4(), os.getpid()
    with tempfile.TemporaryFile() as file:
        diary = _Diary(file.fileno())
        doomed = watched(registry, lambda *call: _execute(doom, diary, *call))
        worker = Worker(doomed, dsn, db_config=config, worker_id=worker_id)
        with warnings.catch_warnings():
            # Python warns of threads: those that are left here are idle, and hold no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _be_doomed(worker, doom.limit, diary, parent_pid)
        code = os.waitstatus_to_exitcode(_wait(pid))
        file.seek(0)
        entries = [json.loads(line) for line in file]
    executed = [(RunKey.parse(each["run"]), each["step"]) for each in entries if "step" in each]
    last = entries[-1] if entries else {}
    run = RunKey.parse(last["dies"]) if "dies" in last and code == -signal.SIGKILL else None
    return Death(worker_id, pid, run, executed, last.get("why", f"its process ended with {code}"))


def _wait(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except BaseException:
        # The test was interrupted: its timeout, or somebody at the keyboard.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _be_doomed(worker: Worker, limit: int, diary: _Diary, parent_pid: int) -> NoReturn:
    """Execute runs; if none comes to the step, end without what the test does at its end."""
    try:
        die_with_parent(parent_pid)
        attempts = 0
        with worker:
            while attempts < limit and worker.process_one():
                attempts += 1
        diary.write(why=f"no run came to it in {attempts} attempts")
    except BaseException:  # noqa: BLE001  told to the test
        diary.write(why=f"its process failed:\n{traceback.format_exc()}")
    finally:
        os._exit(0)


def _execute(doom: Doom, diary: _Diary, wf: Context, step_key: str, call: Callable[[], Any]) -> Any:
    run, is_here = str(wf.run_key), step_key == doom.step_key
    if not (is_here and doom.before):
        diary.write(run=run, step=step_key)
        value = call()
        if not is_here:
            return value
    # What is on its way would be committed or not as it happens, and tests want to know.
    settle(wf)
    diary.write(dies=run)
    return os.kill(os.getpid(), signal.SIGKILL)


class _Diary:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, **entry: str) -> None:
        os.write(self._fd, json.dumps(entry).encode() + b"\n")
