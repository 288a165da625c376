"""The stacks that `faulthandler` prints, each dump in one record where lines are JSON.

A process prints one when a signal such as SIGSEGV kills it, or when it is asked for its stacks. A
dump does not say where it ends: it is taken to be over when the supervisor has something to say, as
of the death of the process, or when nothing of it has come for a moment. What other threads print
in between is no part of it, and comes out before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

__all__ = ["StackRecord", "StackRecords", "Taken"]

_QUIET_S = 0.25
_MOST_CHARACTERS = 60_000
"""Of a record; what is longer becomes several."""

_FATAL = "Fatal Python error: "
_FIRST = re.compile(r"(Fatal Python error: |(Current t|T)hread 0x)")
_FURTHER = re.compile(
    r"$|  File \".*\", line (\d+|\?\?\?) in |  \.\.\.$|  <|  Garbage-collecting$"
    r"|Python runtime state: |Extension modules: |Current thread's C stack trace|  Binary file "
)
"""What may follow; a traceback has a comma where a dump has none, before the name of a function."""


class StackRecord(msgspec.Struct, frozen=True):
    """A dump, or a part of a long one.

    Attributes:
        process: as in "worker render [1/2]".
        pid: of the process.
        level: `error` where it died of it.
        message: what it is, as in "Fatal Python error: Segmentation fault".
        event: `crash`, or `stacks` where they were asked for.
        stack: all lines.
    """

    process: str
    pid: int
    level: Literal["info", "error"]
    message: str
    event: Literal["crash", "stacks"]
    stack: str


class Taken(NamedTuple):
    """What became of a line: whether it is kept, and records to be written first."""

    is_of_stack: bool
    records: list[StackRecord]


@dataclass(slots=True)
class _Dump:
    process: str
    lines: list[str]
    size: int
    last_s: float


class StackRecords:
    """Puts the lines of dumps together, those of each process."""

    def __init__(self) -> None:
        self._dumps: dict[int, _Dump] = {}

    @property
    def is_open(self) -> bool:
        """Whether there is a dump to which more may come."""
        return bool(self._dumps)

    def feed(self, process: str, pid: int, line: str, now_s: float) -> Taken:
        """Take in a line of a process, if it is of a dump."""
        dump = self._dumps.get(pid)
        if not (_FIRST.match(line) or (dump is not None and _FURTHER.match(line))):
            return Taken(is_of_stack=False, records=[])
        records = []
        if dump is not None and dump.size + len(line) > _MOST_CHARACTERS:
            records.append(_record(pid, self._dumps.pop(pid)))
            dump = None
        if dump is None:
            dump = self._dumps[pid] = _Dump(process, [], 0, now_s)
        dump.lines.append(line)
        dump.size += len(line) + 1
        dump.last_s = now_s
        return Taken(is_of_stack=True, records=records)

    def take(self) -> list[StackRecord]:
        """Return what there is: nothing more will come, or it is a part of its own."""
        records = [_record(pid, dump) for pid, dump in self._dumps.items()]
        self._dumps.clear()
        return records

    def take_whole(self, now_s: float) -> list[StackRecord]:
        """Return the dumps of which nothing has come for a moment."""
        quiet = [pid for pid, dump in self._dumps.items() if now_s - dump.last_s >= _QUIET_S]
        return [_record(pid, self._dumps.pop(pid)) for pid in quiet]


def _record(pid: int, dump: _Dump) -> StackRecord:
    stack = "\n".join(dump.lines).rstrip("\n")
    fatal = next((line for line in dump.lines if line.startswith(_FATAL)), None)
    if fatal is None:
        return StackRecord(dump.process, pid, "info", "its stacks", "stacks", stack)
    return StackRecord(dump.process, pid, "error", fatal, "crash", stack)
