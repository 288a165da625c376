"""The maintenance process: the one that keeps leases while workers are busy with their runs.

Every few seconds it renews the leases of all workers of this supervisor and rescues the runs of
hosts that are lost. When the supervisor tells of a dead worker it gives its runs back at once, and
looks again a few times: until the server has noticed that a killed process is gone, its open
transaction keeps its run, and a claim that was on its way may still be committed. In a drain it
also counts what is left. In between it deletes, page by page, what workflows keep no longer.

A thread of it fires schedules, and others serve metrics where that is wanted, so that none of them
waits for another.

A lost connection is opened again, with growing waits. What is to be released meanwhile waits, and
after a reconnection nobody's lease is judged until everybody has had the time to renew.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from flows import clock, crashes, leases
from flows.config import DEFAULT_NOTIFY_CHANNEL
from flows.database import connect, is_lost
from flows.errors import DatabaseError
from flows.retention import Retention, pause_s
from flows.scheduler import Scheduler
from flows.schema import check_version
from flows.supervisor.draining import DrainWatch
from flows.supervisor.exits import ExitCode, explain
from flows.supervisor.messages import (
    Count,
    Counted,
    Drained,
    Notice,
    Progress,
    Ready,
    Release,
    Released,
    Serve,
)
from flows.supervisor.silence import Silence

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping

    from flows.config import DBConfig
    from flows.database import Connection
    from flows.supervisor.child import ChildEnd, ChildMain
    from flows.supervisor.endpoint import Endpoint
    from flows.supervisor.measuring import Measuring
    from flows.supervisor.messages import Prepared
    from flows.supervisor.plan import Level

__all__ = ["MaintenanceProgram"]

_LEASE_S = clock.seconds(leases.LEASE)
_RENEW_S = clock.seconds(leases.RENEW_INTERVAL)

_RESCUE_S = 1.0
"""How often to look for hosts that are lost: their runs wait for the lease and for this."""

_LOOK_AGAIN_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""When to look again for runs of a dead worker, after its first release."""

_RELEASE_AGAIN_S = 1.0
"""When to try again to give back the runs of a dead worker, once the database has refused."""

_RETAIN_AGAIN_S = 300.0
"""When to begin the next pass of deleting runs, once the database has refused in one."""

_RECONNECT_S = (0.1, 5.0)
"""First and longest wait before a lost connection is opened again."""


@dataclass(frozen=True, slots=True)
class MaintenanceProgram:
    """Makes the main function of maintenance processes.

    Attributes:
        dsn: the database.
        listen_dsn: the same one past a pooler, None where there is none.
        config: where the tables are.
        supervisor_id: whose workers' leases are renewed.
        workflows: whose schedules are fired.
        poll_s: how often to look for due schedules without being told.
        drain: what to count in a drain, None if this is none.
        keep_s: how many seconds workflows keep runs that have ended, of those that do not for ever.
        measuring: where it shows that the database answers, and what is served as metrics; None
            where nobody wants to know.
    """

    dsn: str
    listen_dsn: str | None
    config: DBConfig
    supervisor_id: uuid.UUID
    workflows: tuple[str, ...]
    poll_s: float
    drain: DrainWatch | None
    keep_s: Mapping[str, float] = field(default_factory=dict)
    measuring: Measuring | None = None

    def __call__(self, prepared: Prepared) -> ChildMain:
        """Return the main function of a maintenance process."""
        return lambda end: _Maintenance(self, prepared, end).run()


class _Maintenance:
    def __init__(self, program: MaintenanceProgram, prepared: Prepared, end: ChildEnd) -> None:
        self._program = program
        self._prepared = prepared
        self._end = end
        self._connection: Connection | None = None
        self._silence = Silence() if program.measuring is None else program.measuring.silence
        self._reconnect_at_s = 0.0
        self._failures = 0
        self._asked: list[Count] = []
        self._renew_at_s = self._rescue_at_s = self._count_at_s = 0.0
        self._dead: deque[Release] = deque()
        self._look_again: list[tuple[float, int, Release, bool]] = []
        self._refused: set[uuid.UUID] = set()
        self._looks = itertools.count()
        self._retention = Retention(program.config, program.keep_s)
        self._retain_at_s = 0.0
        self._is_retention_refused = False

    def run(self) -> int:
        """Work until asked to stop, and return the exit code.

        Raises:
            DatabaseError: at the start, the database cannot be reached.
            SchemaError: at the start, the tables are not there.
        """
        endpoint = self._serve_metrics()
        self._silence.asked()
        self._connection = self._connect()
        self._silence.answered()
        check_version(self._connection, self._program.config)
        scheduler = self._start_scheduler()
        self._end.channel.send(Ready())
        while True:
            woken = self._end.wait(max(0.0, self._next_s() - clock.monotonic()))
            for message in woken.messages:
                if endpoint is not None:
                    endpoint.hear(message)
                if isinstance(message, Serve):
                    scheduler.serve(message.workflows)
                    self._retention.serve(message.keep_s)
            self._dead += [m for m in woken.messages if isinstance(m, Release)]
            self._asked += [m for m in woken.messages if isinstance(m, Count)]
            if woken.stop:
                scheduler.stop()
                return ExitCode.OK
            self._try_to_work()

    def _serve_metrics(self) -> Endpoint | None:
        """Start to serve metrics, if somebody wants to know; before there is a database."""
        program = self._program
        if program.measuring is None or program.measuring.listener is None:
            return None
        from flows.supervisor.backlog import BacklogWatch  # noqa: PLC0415  where it is wanted
        from flows.supervisor.endpoint import Endpoint  # noqa: PLC0415  likewise

        endpoint = Endpoint(
            program.measuring.listener,
            program.measuring.pulse,
            BacklogWatch(program.dsn, program.config, program.workflows),
        )
        endpoint.start()
        return endpoint

    def _start_scheduler(self) -> Scheduler:
        program = self._program
        scheduler = Scheduler(
            program.dsn,
            program.listen_dsn,
            program.config,
            logging.getLogger("flows"),
            DEFAULT_NOTIFY_CHANNEL,
            program.poll_s,
            program.workflows,
        )
        scheduler.start()
        return scheduler

    def _next_s(self) -> float:
        """Return when there is something to do, should nothing happen before."""
        if self._connection is None:
            return self._reconnect_at_s
        moments = [self._renew_at_s, self._rescue_at_s]
        if not self._retention.is_idle:
            moments.append(self._retain_at_s)
        if self._look_again:
            moments.append(self._look_again[0][0])
        if self._program.drain is not None:
            moments.append(self._count_at_s)
        return min(moments)

    def _try_to_work(self) -> None:
        if self._connection is None and self._reconnect_at_s > clock.monotonic():
            return
        self._silence.asked()
        try:
            if self._connection is not None:
                self._work(self._connection)
            else:
                self._reconnect()
        except (psycopg.Error, DatabaseError) as error:
            self._lose(error)
            if isinstance(error, DatabaseError) or is_lost(error):
                return
        self._silence.answered()

    def _connect(self) -> Connection:
        return connect(self._program.dsn, "flows maintenance")

    def _reconnect(self) -> None:
        connection = self._connection = self._connect()
        self._rescue_at_s = clock.monotonic() + _LEASE_S
        self._renew_at_s = 0.0
        self._work(connection)
        self._failures = 0
        self._tell("maintenance: the database is back", event="database_back")

    def _lose(self, error: psycopg.Error | DatabaseError) -> None:
        """Give the connection up and plan the next one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        first_s, longest_s = _RECONNECT_S
        wait_s = min(longest_s, first_s * 2**self._failures) * (1 - random.random() / 2)  # noqa: S311  jitter
        self._reconnect_at_s = clock.monotonic() + wait_s
        if self._failures == 0:
            text = f"maintenance: {explain(error)}; trying until it works again"
            self._tell(text, "error", "database_away")
        self._failures = min(self._failures + 1, 16)

    def _work(self, connection: Connection) -> None:
        """Do what is due, the most urgent first: whatever fails has not cost anybody a lease."""
        program, now_s = self._program, clock.monotonic()
        if self._renew_at_s <= now_s:
            # What cannot be released, the end of its lease will release.
            leases.renew_supervised(
                connection, program.config, program.supervisor_id, dead=self._refused
            )
            self._renew_at_s = now_s + _RENEW_S
        self._release(connection)
        if self._rescue_at_s <= now_s:
            rescued = leases.rescue_expired(connection, program.config)
            self._rescue_at_s = now_s + _RESCUE_S
            if rescued:
                what = "run" if rescued == 1 else "runs"
                self._tell(f"maintenance: {rescued} {what} of lost workers given back")
        if program.drain is not None and self._count_at_s <= now_s:
            self._count(connection, program.drain)
        if not self._retention.is_idle and self._retain_at_s <= now_s:
            self._retain(connection)
        while self._asked:
            self._end.channel.send(self._answer(connection, self._asked[0]))
            del self._asked[0]

    def _answer(self, connection: Connection, asked: Count) -> Counted:
        try:
            return Counted(DrainWatch(self._program.config, asked.workflows).unfinished(connection))
        except psycopg.Error as error:
            if is_lost(error):
                raise
            # Kept, it would cost one connection after the other, and nobody would be rescued.
            return Counted({}, explain(error))

    def _retain(self, connection: Connection) -> None:
        """Delete a page of runs that are kept no longer, and plan the next one."""
        started_s = clock.monotonic()
        try:
            _, is_over = self._retention.work(connection)
        except psycopg.Error as error:
            if is_lost(error):
                raise
            # Leases come first: what cannot be deleted must not cost a connection every second.
            self._on_not_retained(error, started_s)
            return
        ended_s = clock.monotonic()
        pause = pause_s(ended_s - started_s)
        if is_over:
            pause = _RETAIN_AGAIN_S if self._is_retention_refused else self._retention.next_pass_s()
            self._is_retention_refused = False
        self._retain_at_s = ended_s + pause

    def _on_not_retained(self, error: psycopg.Error, started_s: float) -> None:
        """Go on with the next shard; told once a pass, as all of them may be refused."""
        if not self._is_retention_refused:
            text = f"maintenance: runs that are kept no longer stay: {explain(error)}"
            self._tell(text, "warning")
        ended_s = clock.monotonic()
        self._is_retention_refused = not self._retention.is_between_passes
        pause = pause_s(ended_s - started_s) if self._is_retention_refused else _RETAIN_AGAIN_S
        self._retain_at_s = ended_s + pause

    def _release(self, connection: Connection) -> None:
        while self._dead:
            release = self._dead[0]
            released = self._try_to_release(connection, release)
            self._dead.popleft()
            if released is None:
                self._look_in(_RELEASE_AGAIN_S, release, is_first=True)
            else:
                self._acknowledge(released, release)
        while self._look_again and self._look_again[0][0] <= clock.monotonic():
            *_, release, is_first = self._look_again[0]
            released = self._try_to_release(connection, release)
            heapq.heappop(self._look_again)
            if released is None:
                # Later looks may be refused: the worker counts as stopped, and is rescued from.
                if is_first:
                    self._look_in(_RELEASE_AGAIN_S, release, is_first=True)
            elif is_first:
                self._acknowledge(released, release)
            elif released.runs or released.failed:
                self._end.channel.send(released)

    def _acknowledge(self, released: Released, release: Release) -> None:
        # Only now: what is lost before is told again to the next process.
        self._end.channel.send(released)
        self._refused.discard(release.worker_id)
        for delay_s in _LOOK_AGAIN_S:
            self._look_in(delay_s, release, is_first=False)

    def _look_in(self, delay_s: float, release: Release, *, is_first: bool) -> None:
        look = (clock.monotonic() + delay_s, next(self._looks), release, is_first)
        heapq.heappush(self._look_again, look)

    def _try_to_release(self, connection: Connection, release: Release) -> Released | None:
        """Release what a worker has left; None where the database refuses, which is told once."""
        try:
            return self._released(connection, release)
        except psycopg.Error as error:
            if is_lost(error):
                raise
            if release.worker_id not in self._refused:
                self._refused.add(release.worker_id)
                text = f"maintenance: runs of a dead worker cannot be given back: {explain(error)}"
                self._tell(text, "warning")
            return None

    def _released(self, connection: Connection, release: Release) -> Released:
        """Charge the suspects among a dead worker's runs, and give the others back."""
        config, charge = self._program.config, release.charge
        charged = crashes.Charged([], [])
        if charge is not None:
            charged = crashes.charge(connection, config, charge)
        suspects = () if charge is None else tuple(each.run_id for each in charge.suspects)
        innocent = leases.release_worker(connection, config, release.worker_id, suspects=suspects)
        return Released(
            release.worker_id,
            innocent + len(charged.queued),
            tuple(str(key) for key in charged.queued),
            tuple(str(key) for key in charged.failed),
        )

    def _count(self, connection: Connection, drain: DrainWatch) -> None:
        started_s = clock.monotonic()
        unfinished = drain.unfinished(connection)
        took_s = clock.monotonic() - started_s
        self._count_at_s = started_s + drain.pause_s(took_s)
        # A supervisor that is stopped reads nothing: the next count will do.
        if not self._end.channel.backlog:
            self._end.channel.send(Progress(unfinished))
        if not any(any(counts.values()) for counts in unfinished.values()):
            failed = drain.failed(connection, self._prepared.since)
            self._end.channel.send(Drained(failed))

    def _tell(self, text: str, level: Level = "info", event: str | None = None) -> None:
        self._end.channel.send(Notice(text, level, event))
