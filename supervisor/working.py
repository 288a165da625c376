"""A worker process: one `Worker` in a thread, and the main thread to listen for it.

The main thread only waits, for a signal to stop, the end of the supervisor, or the worker's own
end: so a step that is busy, or a lock that some thread holds, never delays the acting on a signal
by more than the interpreter takes to switch threads.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from flows import tracing
from flows.meter import Meter
from flows.supervisor import cores
from flows.supervisor.exits import ExitCode
from flows.supervisor.messages import Finishing, Measured, Ready, Retire, Stuck
from flows.worker import Worker

if TYPE_CHECKING:
    from flows.registry import Registry
    from flows.supervisor.child import ChildEnd
    from flows.supervisor.jobs import Order, Work

__all__ = ["work"]

_BUSY_S = 1.0
_IDLE_S = 5.0
"""How often the main thread shows that it runs: it is told of signals and messages anyway."""

_MEASURE_S = 1.0
"""How often the supervisor is told what was counted."""

_BEATS_IN_TIMEOUT = 3
"""How often it does within a `hang_timeout`, so that silence for that long is no accident."""


def work(registry: Registry, order: Order, job: Work, end: ChildEnd) -> int:
    """Execute runs of one workflow until told to stop; return the exit code."""
    settings = order.settings
    if job.core is not None:
        cores.keep_to(job.core)
    meter = Meter(job.workflow) if settings.is_measured else None
    watch = _Watch(end, meter)
    worker = Worker(
        registry.only([job.workflow]),
        settings.dsn,
        listen_dsn=settings.listen_dsn,
        db_config=settings.config,
        max_poll_interval=timedelta(seconds=settings.poll_s),
        graceful_shutdown_timeout=timedelta(seconds=settings.grace_s),
        worker_id=job.worker_id,
        supervisor_id=settings.supervisor_id,
        board=end.board,
        on_stuck=watch.stuck,
        meter=meter,
    )
    hang_timeout = registry.get(job.workflow).hang_timeout
    longest_s = _IDLE_S if meter is None else _MEASURE_S
    if hang_timeout is not None:
        longest_s = min(longest_s, hang_timeout.total_seconds() / _BEATS_IN_TIMEOUT)
    with registry.lifespan():
        try:
            return watch.run(worker, longest_s)
        finally:
            # This process leaves without `atexit`, where exporters would send the rest.
            tracing.flush()


class _Watch:
    """Runs a worker in a thread until it ends."""

    _worker: Worker

    def __init__(self, end: ChildEnd, meter: Meter | None) -> None:
        self._end = end
        self._meter = meter
        self._longest_s = _IDLE_S
        self._stuck: SimpleQueue[str] = SimpleQueue()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_ready = False
        self._busy = 0
        self._read_fd, self._write_fd = os.pipe()

    def stuck(self, what: str) -> None:
        """Have the supervisor told of a thread that was given up; from any thread."""
        self._stuck.put(what)
        os.write(self._write_fd, b"\0")

    def run(self, worker: Worker, longest_s: float) -> int:
        """Run `worker` and return the exit code; raises what the worker has raised.

        Shows every `longest_s` seconds at the latest that this thread runs.
        """
        self._worker, self._longest_s = worker, longest_s
        self._end.watch(self._read_fd)
        self._begin()
        while not self._has_ended:
            woken = self._end.wait(self._beat())
            if woken.stop:
                self._end.channel.send(Finishing())
                self._worker.stop()
            elif any(isinstance(message, Retire) for message in woken.messages):
                self._worker.retire()
            if self._read_fd in woken.readable:
                os.read(self._read_fd, 16)
            if self._is_ready:
                self._is_ready = False
                self._end.channel.send(Ready())
            while not self._stuck.empty():
                self._end.channel.send(Stuck(self._stuck.get()))
            self._tell_counts()
        self._tell_counts()
        if self._error is not None:
            raise self._error
        return ExitCode.OK

    def _begin(self) -> None:
        if self._end.board is not None:
            # A run that stops the interpreter may be claimed before this thread goes round once.
            self._end.board.beat(0.0)
        # Daemons: a worker that cannot be stopped must not hold the process.
        threading.Thread(target=self._work, name="worker", daemon=True).start()
        threading.Thread(target=self._notice_ready, name="ready", daemon=True).start()

    def _beat(self) -> float:
        """Show that this thread runs, and how busy the others are; return when to do so again."""
        board = self._end.board
        if board is None:
            return _IDLE_S
        waits_since_s = self._worker.waits_for_database_since_s
        board.beat(waits_since_s)
        state = board.read()
        if state.busy != self._busy:
            self._busy = state.busy
            of = f", {state.busy} of {len(state.executing)} busy" if state.busy else ""
            setproctitle(f"{self._end.title}{of}")
        return min(_BUSY_S, self._longest_s) if state.busy or waits_since_s else self._longest_s

    def _tell_counts(self) -> None:
        """Tell what was counted; a supervisor that does not read is told later, all at once."""
        if self._meter is None or self._end.channel.backlog:
            return
        changes = self._meter.take()
        if changes:
            self._end.channel.send(Measured(changes))

    def _work(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001  raised again in the main thread
            self._error = error
        finally:
            self._has_ended = True
            os.write(self._write_fd, b"\0")

    def _notice_ready(self) -> None:
        self._worker.ready.wait()
        self._is_ready = True
        os.write(self._write_fd, b"\0")
