"""What a supervisor knows of its numbers: the totals, how it stands, and that its loop runs.

    worker ──Measured──▶ totals ──Measured, Standing──▶ maintenance, which serves them
    what the supervisor sees itself ─▶ │

A new maintenance process is told the totals first; then each is told what was added. One that does
not read is told later. That the loop runs is shown in memory that both share: a message would have
to be read by a thread of maintenance that may be waiting for the database.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from typing import TYPE_CHECKING

from flows import clock
from flows.metrics import Tally, observe, zeros
from flows.supervisor.messages import Measured, Standing
from flows.supervisor.silence import Silence

if TYPE_CHECKING:
    import socket

    from flows.metrics import Changes, Metric
    from flows.supervisor.fleet import Fleet
    from flows.supervisor.messages import Channel

__all__ = ["STATES", "Measuring", "Pulse"]

STATES = ("ready", "booting", "waiting", "broken", "retiring")
"""What a worker process can be; `waiting` and `broken` are places without one."""

_BEAT_S = 5.0
"""How often the loop shows that it runs, should nothing happen."""

_MOMENT = struct.Struct("=d")


class Pulse:
    """When the loop of the supervisor last ran, in memory that children share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MOMENT.size)
        self.beat()

    def beat(self) -> None:
        """Show that the loop runs."""
        _MOMENT.pack_into(self._memory, 0, clock.monotonic())

    @property
    def silent_s(self) -> float:
        """Seconds since it last did."""
        return float(clock.monotonic() - _MOMENT.unpack_from(self._memory)[0])


class Measuring:
    """The numbers of a supervisor and its children.

    Attributes:
        listener: where maintenance serves them; None where nobody wants to know.
        pulse: shows that the loop runs.
        silence: how long the database has not answered.
        due_s: when to `act_on_time` next, on the monotonic clock; None for never.
    """

    def __init__(self, listener: socket.socket | None = None) -> None:
        """Measure, if there is where to serve it."""
        self.listener = listener
        self.pulse = Pulse()
        self.silence = Silence()
        self.due_s: float | None = None if listener is None else clock.monotonic()
        self._totals = Tally()
        self._unsent = Tally()
        self._standing = Standing("starting", {})
        self._is_told = False
        self._channel: Channel | None = None

    def count(self, metric: Metric, *labels: str, by: int = 1) -> None:
        """Count something that the supervisor has seen."""
        self.add((((metric.name, *labels), [by]),))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Count a value that it has measured."""
        series = metric.nothing()
        observe(series, metric.bounds, value)
        self.add((((metric.name, *labels), series),))

    def add(self, changes: Changes) -> None:
        """Take in what a child has counted."""
        if self.listener is not None:
            self._totals.add(changes)
            self._unsent.add(changes)

    def begin(self, channel: Channel) -> None:
        """Tell a new maintenance process everything; the one before is gone."""
        if self.listener is None:
            return
        self._channel = channel
        self._unsent = Tally()
        self._is_told = False
        channel.send(Measured(self._totals.read()))

    def act_on_time(self, now_s: float, phase: str, fleet: Fleet) -> None:
        """Show that the loop runs, and tell maintenance what is new; after each turn of the loop.

        Args:
            now_s: on the monotonic clock.
            phase: of the supervisor.
            fleet: its processes.
        """
        if self.listener is None:
            return
        self.pulse.beat()
        self.due_s = now_s + _BEAT_S
        standing = Standing(phase, _processes(fleet))
        if standing != self._standing:
            for workflow in standing.processes.keys() - self._standing.processes.keys():
                self.add(zeros(workflow))
            self._standing, self._is_told = standing, False
        self._tell()

    def _tell(self) -> None:
        channel = self._channel
        if channel is None or channel.backlog:
            return
        if not self._is_told:
            self._is_told = True
            channel.send(self._standing)
        changes = self._unsent.take()
        if changes:
            channel.send(Measured(changes))


def _processes(fleet: Fleet) -> dict[str, dict[str, int]]:
    """Return how many processes of each workflow are in each state."""
    states: dict[str, Counter[str]] = {}
    for slot in fleet.workers:
        counts = states.setdefault(str(slot.workflow), Counter(dict.fromkeys(STATES, 0)))
        if slot.member is None:
            counts["broken" if slot.broken else "waiting"] += 1
        else:
            counts["ready" if slot.is_ready else "booting"] += 1
        counts["booting"] += slot.successor is not None
    for member in fleet.leaving:
        if member.workflow in states:
            states[member.workflow]["retiring"] += 1
    return {workflow: dict(counts) for workflow, counts in states.items()}
