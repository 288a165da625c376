"""The scoreboard: what a process is doing, readable when it is stuck or dead.

A page of shared memory for each process, which its supervisor reads without asking it:

    process cell     heartbeat · since when it waits for the database      main thread
                     runs a second                                         its dispatcher
    executor cells   run · claim · attempt · since · step · since ·        one thread each
                     deadline · done

Each value has one writer. An executor fills the half of its cell that is not in use and then turns
one byte, so that the half in use is whole at any moment, also when the writer is killed between
any two instructions. Readers take no lock; what they read of a living process may be a moment old.

An executor's cell names its run before any code of the workflow is called, and is cleared after
the outcome was handed to the committer. So of a dead process, the runs named are those during
which user code may have run; what it had claimed besides had not begun, or had ended.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import sys
import tempfile
from dataclasses import dataclass

from flows.clock import monotonic

__all__ = ["Board", "BoardState", "Cell", "Executing"]

_HEADER = struct.Struct("=ddI")
_HALF = struct.Struct("=QIHddd36s152s")
_RUN = struct.Struct("=QIHddd36s")
_NUMBER = struct.Struct("=Q")
_RATE = struct.Struct("=d")
_RATE_AT = 24
_STEP_BYTES = 152
_FIRST_HALF = 16
_CELL_BYTES = 512
_HALF_BYTES = (_CELL_BYTES - _FIRST_HALF) // 2
_ELLIPSIS = "…".encode()


@dataclass(frozen=True, slots=True)
class Executing:
    """What an executor is doing.

    Attributes:
        run_id: of the run, as text.
        claim: the fencing token under which it is executed.
        attempt: which attempt it is, from 1.
        since_s: when it began, on the monotonic clock.
        step: the key of the step whose function is running, cut with an ellipsis if it is long;
            None between steps.
        step_since_s: when that was called; 0 between steps.
        deadline_s: when the run's or the step's time is up, the nearer; 0 for never.
    """

    run_id: str
    claim: int
    attempt: int
    since_s: float
    step: str | None
    step_since_s: float
    deadline_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BoardState:
    """What a board says.

    Attributes:
        heartbeat_s: when the main thread last ran, on the monotonic clock; 0 before it first did.
        database_since_s: since when the process waits for the database; 0 if it does not.
        executing: by executor, None for those without a run.
        finished: how many attempts have ended.
        rate: how many runs a second its executors can do, as far as it knows.
    """

    heartbeat_s: float
    database_since_s: float
    executing: tuple[Executing | None, ...]
    finished: int
    rate: float = 0.0

    @property
    def busy(self) -> int:
        """How many executors have a run."""
        return sum(each is not None for each in self.executing)


class Cell:
    """The place of one executor; written by its thread alone."""

    __slots__ = (
        "_at",
        "_attempt",
        "_claim",
        "_deadline_s",
        "_finished",
        "_half",
        "_memory",
        "_run",
        "_since_s",
    )

    def __init__(self, memory: mmap.mmap | bytearray, at: int) -> None:
        """Take the cell at an offset."""
        self._memory = memory
        self._at = at
        self._half = memory[at]
        self._finished = 0
        self._claim = self._attempt = 0
        self._since_s = self._deadline_s = 0.0
        self._run = b""

    def begin(self, run_id: str, claim: int, attempt: int, deadline_s: float | None = None) -> None:
        """Name the run that is executed from here on, and when its time is up."""
        self._claim, self._attempt, self._run = claim, attempt, run_id.encode()
        self._since_s, self._deadline_s = monotonic(), deadline_s or 0.0
        half = 1 - self._half
        at = self._at + _FIRST_HALF + half * _HALF_BYTES
        since_s, deadline_s = self._since_s, self._deadline_s
        _RUN.pack_into(self._memory, at, claim, attempt, 0, since_s, 0.0, deadline_s, self._run)
        self._memory[self._at] = self._half = half

    def step(self, key: str | None, deadline_s: float | None = None) -> None:
        """Name the step whose function is called, or none when it has returned.

        Args:
            key: of the step.
            deadline_s: when its time is up or the run's, the nearer; None for never.
        """
        half = 1 - self._half
        at = self._at + _FIRST_HALF + half * _HALF_BYTES
        if key is None:
            _RUN.pack_into(
                self._memory,
                at,
                self._claim,
                self._attempt,
                0,
                self._since_s,
                0.0,
                self._deadline_s,
                self._run,
            )
        else:
            name = key.encode(errors="replace")
            if len(name) > _STEP_BYTES:
                cut = name[: _STEP_BYTES - len(_ELLIPSIS)].decode(errors="ignore")
                name = cut.encode() + _ELLIPSIS
            _HALF.pack_into(
                self._memory,
                at,
                self._claim,
                self._attempt,
                len(name),
                self._since_s,
                monotonic(),
                deadline_s or 0.0,
                self._run,
                name,
            )
        self._memory[self._at] = self._half = half

    def end(self) -> None:
        """The run is over."""
        half = 1 - self._half
        _NUMBER.pack_into(self._memory, self._at + _FIRST_HALF + half * _HALF_BYTES, 0)
        self._memory[self._at] = self._half = half
        self._finished += 1
        _NUMBER.pack_into(self._memory, self._at + 8, self._finished)

    def hand_over(self) -> Cell:
        """Return the cell for another thread, from that one; what this one writes is lost."""
        heir = Cell(self._memory, self._at)
        heir._finished = self._finished
        self._memory, self._at = bytearray(_CELL_BYTES), 0
        heir.end()
        return heir


class Board:
    """One process's page of the scoreboard."""

    def __init__(self, fd: int) -> None:
        """Map a board; its descriptor may be closed afterwards."""
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._count: int = _HEADER.unpack_from(self._memory)[2]

    @staticmethod
    def open(executors: int, rate: float = 0.0) -> int:
        """Return the descriptor of a new board, in memory that has no name.

        Args:
            executors: how many there are.
            rate: how many runs a second a process like the one to come has done.
        """
        size = _CELL_BYTES * (1 + executors)
        if sys.platform == "linux":
            fd = os.memfd_create("flows-board")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        try:
            os.ftruncate(fd, size)
            os.pwrite(fd, _HEADER.pack(0.0, 0.0, executors), 0)
            os.pwrite(fd, _RATE.pack(rate), _RATE_AT)
        except OSError:
            os.close(fd)
            raise
        return fd

    def cell(self, index: int) -> Cell:
        """Return the place of an executor, for its thread."""
        return Cell(self._memory, _CELL_BYTES * (1 + index))

    def beat(self, database_since_s: float) -> None:
        """Show that the main thread runs; only there.

        Args:
            database_since_s: since when the process waits for the database; 0 if it does not.
        """
        _HEADER.pack_into(self._memory, 0, monotonic(), database_since_s, self._count)

    @property
    def rate(self) -> float:
        """How many runs a second the executors can do, as it was shown last."""
        # Of a process whose death is not yet acted upon it is closed.
        return 0.0 if self._memory.closed else _RATE.unpack_from(self._memory, _RATE_AT)[0]

    def show_rate(self, rate: float) -> None:
        """Show how many runs a second the executors can do; only in the dispatcher's thread."""
        _RATE.pack_into(self._memory, _RATE_AT, rate)

    def read(self) -> BoardState:
        """Return what the board says."""
        heartbeat_s, database_since_s, _ = _HEADER.unpack_from(self._memory)
        cells = [_CELL_BYTES * (1 + index) for index in range(self._count)]
        finished = sum(_NUMBER.unpack_from(self._memory, at + 8)[0] for at in cells)
        executing = tuple(self._executing(at) for at in cells)
        return BoardState(heartbeat_s, database_since_s, executing, finished, self.rate)

    def close(self) -> None:
        """Release the memory; not while a cell of it is in use."""
        with contextlib.suppress(BufferError):
            self._memory.close()

    def _executing(self, at: int) -> Executing | None:
        at += _FIRST_HALF + self._memory[at] * _HALF_BYTES
        claim, attempt, length, since_s, step_since_s, deadline_s, run, name = _HALF.unpack_from(
            self._memory, at
        )
        if not claim:
            return None
        step = name[:length].decode(errors="replace") if length else None
        run_id = run.rstrip(b"\0").decode()
        return Executing(run_id, claim, attempt, since_s, step, step_since_s, deadline_s)
