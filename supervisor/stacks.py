"""Where the threads of children are: asked for by signal, heard on their output."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flows.supervisor.happenings import ChildProcess

__all__ = ["Stacks"]

_QUIET_S = 0.25
_LONGEST_S = 2.0


@dataclass(slots=True)
class _Question:
    """One who has asked, and what has been heard for it."""

    lines: dict[int, list[str]]
    names: dict[int, str]
    answer: Callable[[dict[str, list[str]]], None]
    until_s: float
    at_most_until_s: float


class Stacks:
    """Collects what children print when they are asked for their stacks.

    A dump says nothing when it is over: it is taken to be when nobody has printed for a moment.
    """

    def __init__(self) -> None:
        """Ask nobody yet."""
        self._questions: list[_Question] = []

    @property
    def due_s(self) -> float | None:
        """When `act_on_time` has something to do."""
        return min((each.until_s for each in self._questions), default=None)

    def ask(
        self,
        children: Mapping[ChildProcess, str],
        answer: Callable[[dict[str, list[str]]], None],
    ) -> None:
        """Ask children for their stacks; `answer` gets the lines by name, after a moment."""
        now_s = clock.monotonic()
        names = {child.pid: name for child, name in children.items()}
        lines: dict[int, list[str]] = {pid: [] for pid in names}
        question = _Question(lines, names, answer, now_s + _QUIET_S, now_s + _LONGEST_S)
        self._questions.append(question)
        for child in children:
            child.send_signal(signal.SIGUSR1)

    def hear(self, pid: int, line: str) -> None:
        """Take in a line that a child has printed."""
        for question in self._questions:
            if pid in question.lines and _is_of_stack(line):
                question.lines[pid].append(line)
                question.until_s = min(clock.monotonic() + _QUIET_S, question.at_most_until_s)

    def act_on_time(self, now_s: float) -> None:
        """Answer those questions to which nothing more comes."""
        over = [each for each in self._questions if each.until_s <= now_s]
        for question in over:
            self._questions.remove(question)
            question.answer({question.names[pid]: lines for pid, lines in question.lines.items()})


def _is_of_stack(line: str) -> bool:
    return line.startswith(("Thread 0x", "Current thread 0x", '  File "', "  ...")) or not line
