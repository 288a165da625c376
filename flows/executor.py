"""Executors: the threads that run attempts of one workflow."""

from __future__ import annotations

import math
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from flows.attempt import Attempt
from flows.clock import monotonic, process_time
from flows.pace import HOLD_S, Pace
from flows.records import Outcome, OutcomeKind, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.board import Cell
    from flows.claims import ClaimedRun
    from flows.engine import Engine
    from flows.registry import Workflow

__all__ = ["ExecutorPool"]


class ExecutorPool:
    """`concurrency` threads that take claimed runs in order and execute one attempt each.

    A suspect runs alone: it begins when no other attempt runs, and none begins before it has ended.
    """

    def __init__(
        self,
        engine: Engine,
        workflow: Workflow[Any, Any],
        on_room: Callable[[], None],
        cells: Sequence[Cell] | None = None,
    ) -> None:
        """Prepare the threads; `start` them.

        Args:
            engine: what attempts share.
            workflow: whose runs they execute.
            on_room: called when runs waiting for an executor have become few.
            cells: where each executor shows what it does, None for nowhere.
        """
        self._engine = engine
        self._workflow = workflow
        self._on_room = on_room
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[ClaimedRun] = deque()
        self._running: dict[int, Attempt] = {}
        self._pace = Pace()
        self._low_water = 0
        self._idle = 0
        self._is_waking = False
        self._is_stopping = False
        self._runs_alone = False
        self._began_s = 0.0
        self.finished = 0
        self._cells: list[Cell | None] = [None] * workflow.concurrency
        if cells is not None:
            self._cells = list(cells)
        self._threads = [self._thread(number) for number in range(workflow.concurrency)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many claimed runs wait for an executor."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """How many executors could begin a run now."""
        with self._lock:
            return self._free()

    @property
    def is_closed(self) -> bool:
        """Whether no run may begin, since a suspect runs alone or waits for that."""
        with self._lock:
            return self._is_closed()

    @property
    def busy_since_s(self) -> float | None:
        """Since when all executors have been busy with the same runs; None if one is free."""
        with self._lock:
            return self._began_s if len(self._running) == len(self._threads) else None

    @property
    def waits_since_s(self) -> float | None:
        """Since when the first of the runs has waited for an executor; None if none does."""
        with self._lock:
            return self._waiting[0].claimed_s if self._waiting else None

    def put(self, runs: Sequence[ClaimedRun], low_water: int) -> None:
        """Queue claimed runs; `on_room` is called once no more than `low_water` of them wait."""
        with self._lock:
            self._waiting.extend(runs)
            self._low_water = low_water
            self._wake_next()

    def give_back(self) -> None:
        """Give the runs that no executor has begun back to the queue."""
        with self._lock:
            runs = list(self._waiting)
            self._waiting.clear()
        self._submit(runs)

    def give_back_late(self, before_s: float) -> int:
        """Give back what waits, if none of it will begin now and the first was claimed too early.

        A suspect whose turn comes when the others have ended is kept: it would be claimed again for
        the executors that are free, at once and time and again.

        Args:
            before_s: when that is, on the monotonic clock.

        Returns:
            How many runs were given back.
        """
        with self._lock:
            if not self._waiting or self._waiting[0].claimed_s > before_s:
                return 0
            runs = list(islice(self._waiting, self._kept(), None))
            for _ in runs:
                self._waiting.pop()
        self._submit(runs)
        return len(runs)

    def _kept(self) -> int:
        """Tell how many of the runs that wait have their turn here, whatever the others take."""
        if self._free():
            return len(self._waiting)
        is_turn_of_suspect = len(self._running) < len(self._threads) and not self._runs_alone
        return int(is_turn_of_suspect)

    def _submit(self, runs: Sequence[ClaimedRun]) -> None:
        for run in runs:
            record = RunRecord(run.shard, run.run_id, run.claim)
            outcome = Outcome(OutcomeKind.NOT_BEGUN, later_s=run.later_s)
            self._engine.committer.submit(record, outcome)

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that wait for an executor or have one."""
        with self._lock:
            waiting = [run.run_id for run in self._waiting]
            return waiting + [attempt.record.run_id for attempt in self._running.values()]

    def held(self) -> list[tuple[str, str]]:
        """Return the same runs, each with its shard."""
        with self._lock:
            waiting = [(run.shard, run.run_id) for run in self._waiting]
            records = [attempt.record for attempt in self._running.values()]
            return waiting + [(record.shard, record.run_id) for record in records]

    def stop(self, deadline_s: float) -> bool:
        """Let running attempts finish, until the monotonic time `deadline_s`.

        Returns:
            True if all of them have.
        """
        with self._lock:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in list(self._threads):
            thread.join(max(0.0, deadline_s - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def running(self) -> list[Attempt]:
        """Return the attempts that are being executed."""
        with self._lock:
            return list(self._running.values())

    def cancel(self, run_id: str) -> ClaimedRun | None:
        """Have the attempt of a run end because somebody wants the run cancelled.

        Returns:
            The run, if no executor has begun it and none will.
        """
        with self._lock:
            for attempt in self._running.values():
                if attempt.record.run_id == run_id:
                    attempt.cancel()
                    return None
            found = [run for run in self._waiting if run.run_id == run_id]
            self._remove(found)
        if found:
            self._on_room()
        return found[0] if found else None

    def take_overdue(self, now_s: float) -> list[ClaimedRun]:
        """Take back the runs that no executor has begun and that are past their deadline."""
        with self._lock:
            overdue = [
                run
                for run in self._waiting
                if run.deadline_s is not None and run.deadline_s <= now_s
            ]
            self._remove(overdue)
        if overdue:
            self._on_room()
        return overdue

    def _remove(self, runs: Sequence[ClaimedRun]) -> None:
        """Take back waiting runs, and tell the others: one that waited to run alone may be gone."""
        for run in runs:
            self._waiting.remove(run)
        if runs:
            self._changed.notify_all()

    def _thread(self, number: int) -> threading.Thread:
        name = f"flows-{self._workflow.name}-{number}"
        return threading.Thread(target=self._run, args=(number,), name=name, daemon=True)

    def _run(self, number: int) -> None:
        me = threading.get_ident()
        cell = self._cells[number]
        while (attempt := self._take(me, number, cell)) is not None:
            began_s = monotonic()
            try:
                attempt.execute()
            except BaseException as error:  # noqa: BLE001  not the workflow's: the worker ends
                self._engine.on_failure(error)
            if attempt.is_given_up:
                # Another thread has taken the place of this one.
                return
            self._done(me, monotonic() - began_s)

    def _replace(self, number: int, me: int) -> None:
        """Have another thread in the place of one that does not come back."""
        with self._lock:
            cell = self._cells[number]
            if cell is not None:
                self._cells[number] = cell.hand_over()
            self._threads[number] = self._thread(number)
        self._done(me, math.inf)
        self._threads[number].start()

    def _take(self, me: int, number: int, cell: Cell | None) -> Attempt | None:
        with self._lock:
            while not self._may_begin() or self._stands_by():
                if self._is_stopping and not self._waiting:
                    return None
                self._sleep()
            run = self._waiting.popleft()
            self._runs_alone = run.is_suspect
            attempt = Attempt(
                self._engine,
                self._workflow,
                run,
                cell,
                lambda: self._replace(number, me),
            )
            self._running[me] = attempt
            self._began_s = monotonic()
            is_low = len(self._waiting) == self._low_water
            self._wake_next()
        if is_low:
            self._on_room()
        return attempt

    def _may_begin(self) -> bool:
        return bool(self._waiting) and not self._is_closed()

    def _wake_next(self) -> None:
        """Have one more thread come, if a run waits for it; that one has the next one come.

        Those that run have the interpreter's lock until their runs wait for something: all threads
        at once would fight for it, and find that most of the runs are done.
        """
        is_one_coming = self._is_waking and bool(self._running)
        if self._idle and not is_one_coming and self._may_begin():
            self._is_waking = True
            self._changed.notify()

    def _sleep(self) -> None:
        """Sleep until a run waits, or stand by, if nobody does, where it would be of no help."""
        is_to_look_again = not self._is_waking and self._may_begin()
        self._is_waking = self._is_waking or is_to_look_again
        self._idle += 1
        self._changed.wait(HOLD_S if is_to_look_again else None)
        self._idle -= 1
        self._is_waking = False

    def _stands_by(self) -> bool:
        """Tell whether this thread would only take turns with those that run."""
        return bool(self._running) and self._pace.is_kept(
            monotonic(), process_time(), self._began_s
        )

    def _free(self) -> int:
        return 0 if self._is_closed() else len(self._threads) - len(self._running)

    def _is_closed(self) -> bool:
        """Tell whether no attempt may begin, since one runs alone or waits for that."""
        return self._runs_alone or (
            bool(self._running) and bool(self._waiting) and self._waiting[0].is_suspect
        )

    def _done(self, me: int, took_s: float) -> None:
        with self._lock:
            was_closed = self._is_closed()
            self._pace.ended(took_s)
            del self._running[me]
            self._runs_alone = False
            self.finished += 1
            is_open = not self._is_closed()
            has_room = is_open and (was_closed or not self._waiting)
            is_dry = not self._running and not self._waiting
            if was_closed:
                self._changed.notify_all()
        if is_dry:
            self._engine.committer.hurry()
        if has_room:
            self._on_room()
