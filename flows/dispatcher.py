"""The dispatcher: claims runs of one workflow and feeds its executors.

    LISTEN, then:   claim while there is room and there may be due runs
                    give back what waits for an executor far longer than it was claimed ahead for
                    wait for a notification, room, the next due sleeper, or the poll

A notification names the shard, which is then claimed from first; one that names a run also asks
whether an event was published while that run was yielding, and whether it is to be cancelled.
Notifications may get lost, so the dispatcher polls regardless, ever more rarely while nothing is
found; and where they come in crowds it asks for quiet, and looks by itself. Who tells of one run
may do so for others that are yet to be committed, so it looks again until they are. An empty claim
tells when the next sleeping run is due, and the wait ends exactly then.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from flows import plans, sql
from flows.awaited import ASKING
from flows.claims import (
    Claimed,
    ClaimedRun,
    claim_runs,
    release_strays,
    sweep_waiting,
    wake_satisfied,
)
from flows.clock import WakeUp, monotonic, seconds
from flows.database import connect, is_pooled, is_transient, listen, take_notifications
from flows.errors import DatabaseError
from flows.heads import Heads
from flows.lookahead import PATIENCE_S, LookAhead
from flows.outages import OutageLog
from flows.oversight import Oversight
from flows.quiet import LATE_S, LOOK_S, WINDOW_S, Quiet, quiet_key
from flows.shard import shard_values_for_workflow
from flows.turns import ShardTurns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.board import Board
    from flows.config import DBConfig
    from flows.database import Connection
    from flows.engine import Engine
    from flows.executor import ExecutorPool
    from flows.registry import Workflow

__all__ = ["Dispatcher", "Polling"]

RECENT_S = 900.0
"""The idle sweep looks at runs that began to wait within so many seconds: a publisher whose
transaction stays open longer, and whose notification is lost as well, is found by the full sweep
of the next dispatcher that starts."""

STRAYS_S = 120.0
"""How long after a connection is made runs are looked for that a lost one has claimed."""

MAX_UNCOMMITTED = 4000
"""Back-pressure: no claims while so many outcomes wait for a slow database."""

RECONNECT_S = (0.05, 5.0)


@dataclass(frozen=True, slots=True)
class Polling:
    """How often to look without being told.

    Attributes:
        first_s: seconds until the first idle poll; each empty one doubles it.
        longest_s: the bound of that.
    """

    first_s: float
    longest_s: float


class Dispatcher:
    """Claims for one workflow, from a thread and a connection of its own."""

    def __init__(
        self,
        engine: Engine,
        workflow: Workflow[Any, Any],
        config: DBConfig,
        dsn: str,
        listen_dsn: str | None,
        polling: Polling,
        worker_id: Callable[[], uuid.UUID],
        check_lease: Callable[[Connection], uuid.UUID],
        board: Board | None = None,
    ) -> None:
        """Prepare a dispatcher; give it its executors and `start` it.

        Args:
            engine: what attempts share.
            workflow: whose runs it claims.
            config: where the tables are.
            dsn: the database.
            listen_dsn: the same one past a pooler, None where there is none.
            polling: how often to look without being told.
            worker_id: tells under which id runs were claimed.
            check_lease: called before claims; tells under which id to claim, which is registered,
                or raises if this worker has lost its lease.
            board: where it shows how many runs a second its executors can do; what stands there at
                first is believed.
        """
        self._engine = engine
        self._outage = OutageLog(engine.logger, "claim")
        self._schema = config.schema
        self._dsn = listen_dsn or dsn
        self._is_told = listen_dsn is not None
        self._polling = polling
        self._longest_s = polling.longest_s
        self._worker_id = worker_id
        self._check_lease = check_lease
        self.shards = shard_values_for_workflow(workflow.name, config.shard_count)
        self._known = frozenset(self.shards)
        self._turns = ShardTurns(self.shards)
        self._heads = Heads()
        self._quiet = Quiet(len(self.shards))
        self._quiet_key: int | None = None
        self._late_s: float | None = None
        self._workflow_name = workflow.name
        self._board = board
        rate = 0.0 if board is None else board.rate
        self._look_ahead = LookAhead(rate, workflow.concurrency)
        self._wake_up = WakeUp()
        timeout = workflow.run_timeout
        self._run_timeout_s = None if timeout is None else seconds(timeout)
        self._oversight = Oversight(engine, self.shards)
        self._published: dict[tuple[str, str], None] = {}
        self._is_stopping = False
        self._idle_s = polling.first_s
        self._poll_at_s = 0.0
        self._sweep_window_s: float | None = None
        self._sweep_from_s = 0.0
        self._sweep_by_s = 0.0
        self._strays_until_s = 0.0
        self.executors: ExecutorPool | None = None
        self.waits_since_s = 0.0
        self.listening = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"flows-dispatcher-{workflow.name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Claim nothing more and end the thread."""
        self._is_stopping = True
        self._wake_up.set()
        if self._thread.is_alive():
            self._thread.join()
        self._wake_up.close()

    def queued(self, shard: str) -> None:
        """A run of this shard is due now or soon; called from any thread."""
        self._turns.tell(shard)
        self._wake_up.set()

    def room(self) -> None:
        """Executors can take more; called from their threads."""
        self._wake_up.set()

    def _run(self) -> None:
        delay_s, longest_s = RECONNECT_S
        while not self._is_stopping:
            try:
                with connect(self._dsn, "flows dispatcher") as connection:
                    plans.keep(connection)
                    self._listen(connection)
                    self._release_strays(connection)
                    self._strays_until_s = monotonic() + STRAYS_S
                    self.listening.set()
                    self._turns.suspect_all()
                    self._oversight.begin(self._longest_s)
                    self._sweep_window_s = None
                    self._sweep_by_s = monotonic() + self._longest_s
                    delay_s, longest_s = RECONNECT_S
                    self._serve(connection)
            except (psycopg.Error, DatabaseError) as error:
                if not is_transient(error):
                    self._engine.on_failure(error)
                    return
                self._outage.failed(error)
                self._wake_up.wait(delay_s)
                delay_s = min(longest_s, delay_s * 2)
                self._turns.suspect_all()
            except BaseException as error:  # noqa: BLE001  the worker ends with it
                self._engine.on_failure(error)
                return

    def _listen(self, connection: Connection) -> None:
        channel = self._engine.notify_channel
        if channel is not None and (self._is_told or not is_pooled(connection)):
            listen(connection, channel)
            self._quiet = Quiet(len(self.shards))
            self._quiet_key = quiet_key(self._schema, channel, self._workflow_name)
            self._longest_s = self._polling.longest_s
        else:
            # Nobody will tell, so polling is all there is; of a pooler the scheduler warns.
            self._quiet_key = None
            self._longest_s = self._polling.first_s

    def _drain(self, connection: Connection) -> None:
        """Take in the notifications that have come; raises if the connection is gone."""
        for payload, pid in take_notifications(connection):
            self._notified(payload, pid)

    def _notified(self, payload: str, pid: int) -> None:
        if pid == self._engine.committer.backend_pid:
            return  # our own committer has said so already, without the detour
        if payload.startswith(ASKING):
            self._asked(payload.removeprefix(ASKING))
            return
        shard, colon, run_id = payload.rpartition(":")
        if payload in self._known:
            self._turns.tell(payload)
            self._quiet.told()
            self._expect_late()
        elif colon and shard in self._known:
            self._turns.tell(shard)
            with contextlib.suppress(ValueError):
                # Anybody may write to the channel, and Postgres reads fewer spellings of a UUID.
                self._published[shard, str(uuid.UUID(run_id))] = None

    def _asked(self, key: str) -> None:
        """Somebody waits for the end of a run."""
        awaited = self._engine.awaited
        shard, _, run_id = key.rpartition(":")
        if awaited is not None and shard in self._known:
            with contextlib.suppress(ValueError):
                # Anybody may write to the channel, and what is no key is not remembered.
                awaited.add(f"{shard}:{uuid.UUID(run_id)}")

    def _serve(self, connection: Connection) -> None:
        was_busy = False
        while not self._is_stopping:
            executors = self._pool()
            self._give_back_late(executors)
            waiting, free = executors.waiting, executors.free
            self._look_ahead.observe(
                monotonic(),
                executors.finished,
                was_busy=was_busy,
                busy_since_s=executors.busy_since_s,
            )
            if self._board is not None:
                self._board.show_rate(self._look_ahead.rate)
            self._turns.come_due(monotonic())
            self._settle_quiet(connection)
            may_have_due = self._turns.may_have_due
            if may_have_due and self._has_room(free, waiting):
                self._claim(connection, self._look_ahead.wanted(free, waiting))
                was_busy = executors.waiting > 0
                continue
            was_busy = waiting > 0
            # Those that came along with a claim's answer do not make the socket readable again.
            self._drain(connection)
            self._attend(connection)
            if may_have_due or not self._turns.may_have_due:
                # Where something is due and there is no room for it, the executors will tell.
                self._wait(connection)

    @property
    def _looks_by_itself(self) -> bool:
        """Whether begins need not be told of, because they come in crowds."""
        return self._quiet_key is not None and not self._quiet.is_told

    def _settle_quiet(self, connection: Connection) -> None:
        """Ask for quiet where runs come in crowds, and to be told again when they do not."""
        if self._quiet_key is None:
            return
        now_s, quiet = monotonic(), self._quiet
        if quiet.should_end(now_s):
            if self._ask(connection, "end_quiet", has_asked=quiet.has_asked):
                quiet.ended(now_s)
                # Nobody has told of what was begun meanwhile, nor will of what commits later.
                self._turns.suspect_all()
                self._expect_late()
        elif quiet.should_ask(now_s):
            is_granted = self._ask(connection, "begin_quiet", is_told=quiet.is_told)
            quiet.asked(now_s, is_granted=is_granted)
            self._idle_s = LOOK_S

    def _ask(self, connection: Connection, query: str, **values: bool) -> bool:
        text = sql.load(query, self._schema)
        row = connection.execute(text, {"quiet_key": self._quiet_key, **values}).fetchone()
        return row is not None and bool(row[0])

    def _expect_late(self) -> None:
        """Somebody may commit runs of which nobody tells."""
        self._late_s = self._late_s or LOOK_S
        # PostgreSQL lets go of a transaction's locks one by one, and between two of them whoever
        # looks may be wrong.
        self._idle_s = min(self._idle_s, self._polling.first_s)

    def _give_back_late(self, executors: ExecutorPool) -> None:
        """Give back runs that no executor comes to: another process may be free.

        Nothing is claimed ahead in their place, so that where there is no other process, each comes
        back when an executor is free for it, and never sooner.
        """
        # What the committer has not written is not given back either.
        if not self._is_behind() and executors.give_back_late(monotonic() - PATIENCE_S):
            self._look_ahead.begin_anew()

    def _pool(self) -> ExecutorPool:
        assert self.executors is not None, "a dispatcher is started with executors"
        return self.executors

    def _has_room(self, free: int, waiting: int) -> bool:
        if self._is_behind() or self._pool().is_closed:
            # What would wait behind a suspect, another process may do at once.
            return False
        return self._look_ahead.should_claim(free, waiting)

    def _is_behind(self) -> bool:
        committer = self._engine.committer
        return committer.is_full or committer.backlog > MAX_UNCOMMITTED

    def _claim(self, connection: Connection, wanted: int) -> None:
        worker_id = self._check_lease(connection)
        turns = self._turns
        if monotonic() >= self._poll_at_s:
            # Under a load that never pauses, too.
            turns.suspect_all()
        shards = turns.in_turn()
        self.waits_since_s = monotonic()
        plans.renew(connection)
        claimed = claim_runs(
            connection,
            self._schema,
            shards,
            wanted,
            worker_id,
            blindly=turns.was_full,
            run_timeout_s=self._run_timeout_s,
            heads=self._heads,
            quiet_key=None if self._looks_by_itself or self._late_s is None else self._quiet_key,
        )
        took_s = monotonic() - self.waits_since_s
        self.waits_since_s = 0.0
        plans.took(connection, took_s)
        self._outage.worked()
        if self._engine.meter is not None:
            self._engine.meter.claimed(took_s)
        if claimed.runs:
            self._look_ahead.claimed()
            self._oversight.claimed(claimed.runs)
            self._idle_s = min(self._idle_s, self._polling.first_s)
            self._pool().put(claimed.runs, self._look_ahead.ahead // 2)
        now_s = monotonic()
        is_full = len(claimed.runs) >= wanted
        turns.looked(claimed.next_due_s, now_s, full=is_full)
        self._quiet.looked(len(claimed.runs), is_full=is_full)
        poll_at_s = now_s + self._next_look_s(claimed)
        # A look at some of the shards does not put off that at the others.
        is_whole = len(shards) == len(turns.shards)
        self._poll_at_s = poll_at_s if is_whole else min(self._poll_at_s, poll_at_s)
        self._attend(connection, claimed.runs)
        if monotonic() >= self._sweep_by_s:
            # Under a load that never pauses no poll comes round.
            self._sweep(connection)

    def _next_look_s(self, claimed: Claimed) -> float:
        """Return how long to wait for the next look, if nobody tells of anything."""
        if self._looks_by_itself:
            return LOOK_S
        late_s = LOOK_S if claimed.runs else self._late_s
        if late_s is None or not claimed.is_late:
            self._late_s = None
            return self._idle_s
        self._late_s = min(LATE_S, late_s * 2)
        return min(late_s, self._idle_s)

    def _attend(self, connection: Connection, claimed: Sequence[ClaimedRun] = ()) -> None:
        """Look at what was announced, and at what must not go on."""
        if self._published:
            self._look_at_announced(connection, claimed)
        if monotonic() >= self._oversight.due_at_s:
            self._oversight.look(connection, self._pool())

    def _look_at_announced(self, connection: Connection, claimed: Sequence[ClaimedRun]) -> None:
        """Look at runs to which something has happened and that were not simply due."""
        for run in claimed:
            self._published.pop((run.shard, run.run_id), None)
        by_shard: dict[str, list[str]] = {}
        for shard, run_id in list(self._published):
            del self._published[shard, run_id]
            by_shard.setdefault(shard, []).append(run_id)
        if by_shard:
            self._oversight.told(connection, self._pool(), by_shard)
        for shard, run_ids in by_shard.items():
            # They are as old as ever, and have waited long enough.
            self._heads.forget(shard)
            if wake_satisfied(connection, self._schema, shard, run_ids):
                self._turns.tell(shard)

    def _wait(self, connection: Connection) -> None:
        timeout_s = max(0.0, self._wait_until() - monotonic())
        if self._wake_up.wait(timeout_s, connection.fileno()):
            self._drain(connection)
        elif not self._turns.may_have_due and monotonic() >= self._poll_at_s:
            self._turns.suspect_all()
            if not self._looks_by_itself and self._late_s is None:
                self._idle_s = min(self._longest_s, self._idle_s * 2)
                self._sweep(connection)

    def _release_strays(self, connection: Connection) -> None:
        """Give back the runs of a claim whose answer was lost with the connection.

        Their worker lives, so that nobody else would.
        """
        # In this order: what leaves the executors in between is found with the committer.
        known = self._pool().run_ids() + self._engine.committer.run_ids()
        strays = release_strays(connection, self._schema, self.shards, self._worker_id(), known)
        if strays:
            self._turns.suspect_all()
            self._engine.logger.warning("gave back %d runs whose claim was not answered", strays)

    def _sweep(self, connection: Connection) -> None:
        """Look for events that nobody told of: at first everywhere, then at what is recent."""
        began_s = monotonic()
        if began_s >= self._sweep_from_s:
            sweep_waiting(connection, self._schema, self.shards, self._sweep_window_s)
            if began_s < self._strays_until_s:
                # Again, because the server may work on a statement for a while after a cut.
                self._release_strays(connection)
            self._sweep_window_s = RECENT_S
            # However many runs wait, this takes a twentieth of one session at most.
            ended_s = monotonic()
            self._sweep_from_s = ended_s + 20 * (ended_s - began_s)
            self._sweep_by_s = ended_s + self._longest_s

    def _wait_until(self) -> float:
        now_s = monotonic()
        if self._turns.may_have_due:
            # For room, of which the executors tell. Nobody tells when the committer has caught up.
            moments = [now_s + self._polling.first_s] if self._is_behind() else []
        else:
            moments = [self._poll_at_s]
            if self._turns.due_at_s is not None:
                moments.append(self._turns.due_at_s)
        if self._looks_by_itself:
            # Whoever has no room to look must not ask for quiet.
            moments.append(now_s + WINDOW_S)
        waits_since_s = self._pool().waits_since_s
        if waits_since_s is not None:
            late_at_s = waits_since_s + PATIENCE_S
            # What is late already, and was kept, is looked at again.
            moments.append(late_at_s if late_at_s > now_s else now_s + PATIENCE_S)
        return min([*moments, self._oversight.due_at_s])
