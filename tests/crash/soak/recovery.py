"""How long it takes until the runs of a killed process are executed again."""

from __future__ import annotations

import contextlib
import statistics
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from flows import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Figures", "Recoveries"]

LOOK_S = 0.005
EXECUTED = """
    SELECT r.run_id, r.claim FROM flows.runs AS r JOIN flows.workers AS w USING (worker_id)
    WHERE r.status = 'running' AND w.pid = ANY(%s) AND w.stopped_at IS NULL
"""
LEFT = """
    SELECT count(*) FROM unnest(%s::uuid[], %s::bigint[]) AS u (run_id, claim)
    JOIN flows.runs AS r USING (run_id)
    WHERE r.claim = u.claim AND r.status IN ('running', 'queued')
"""


class Figures(NamedTuple):
    """Times in seconds, of so many recoveries."""

    times: int
    median_s: float
    p99_s: float
    longest_s: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Figures | None:
        """Return the figures of some times, None where there are none."""
        if not times_s:
            return None
        ordered = sorted(times_s)
        p99_s = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
        return cls(len(ordered), statistics.median(ordered), p99_s, ordered[-1])


@dataclass
class _Recovery:
    kind: str
    killed_s: float
    run_ids: list[Any]
    claims: list[int]


@dataclass
class Recoveries:
    """Watches what becomes of the runs of killed processes, from a thread of its own.

    Attributes:
        times_s: by kind of death, how long each recovery has taken.
        disturbed: how many were disturbed by what happened to the server meanwhile.
    """

    dsn: str
    times_s: dict[str, list[float]] = field(default_factory=dict)
    disturbed: int = 0
    _open: list[_Recovery] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="recoveries", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def executed_by(self, pids: Sequence[int]) -> list[tuple[Any, int]]:
        """Return the runs that these processes hold now, none where the server cannot say."""
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(self.dsn, autocommit=True) as connection,
        ):
            return connection.execute(EXECUTED, (list(pids),)).fetchall()
        return []

    def watch(self, kind: str, held: Sequence[tuple[Any, int]]) -> None:
        """Measure from now on, until all these runs are claimed again or have ended."""
        if held:
            run_ids, claims = [run for run, _ in held], [claim for _, claim in held]
            with self._lock:
                self._open.append(_Recovery(kind, clock.monotonic(), run_ids, claims))

    def disturb(self) -> None:
        """Give up what is being measured: it would show how long the server was away."""
        with self._lock:
            self.disturbed += len(self._open)
            self._open.clear()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    self._look(connection)
            except psycopg.OperationalError:
                self.disturb()
                self._stop.wait(0.1)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stop.wait(LOOK_S):
            with self._lock:
                watched = list(self._open)
            for recovery in watched:
                row = connection.execute(LEFT, (recovery.run_ids, recovery.claims)).fetchone()
                if row is not None and row[0] == 0:
                    self._note(recovery)

    def _note(self, recovery: _Recovery) -> None:
        took_s = clock.monotonic() - recovery.killed_s
        with self._lock:
            if recovery in self._open:
                self._open.remove(recovery)
                self.times_s.setdefault(recovery.kind, []).append(took_s)
