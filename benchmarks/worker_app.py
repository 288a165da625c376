"""One worker process with one workflow: `python -m benchmarks.worker_app DSN WORKFLOW …`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from datetime import timedelta

import flows
from flows.clock import monotonic
from flows.supervisor import cores

__all__ = ["burn", "main", "registry_for"]


def nothing(number: int) -> int:
    """Do nothing, as a step."""
    return number


def burn(loops: int) -> int:
    """Use the processor in pure Python for as long as so many loops take."""
    total = 0
    for number in range(loops):
        total = (total + number * number) % 1_000_003
    return total


def noop(wf: flows.Context, number: int) -> int:
    """Do one step."""
    return wf.execute("nothing/v1", nothing, number)


def five(wf: flows.Context, number: int) -> int:
    """Do five steps."""
    for step in range(5):
        number = wf.execute(f"nothing{step}/v1", nothing, number)
    return number


def cpu(wf: flows.Context, loops: int) -> float:
    """Use the processor in one step; return for how many seconds its thread had one."""
    began_s = time.thread_time()
    wf.execute("burn/v1", burn, loops)
    return time.thread_time() - began_s


def book(wf: flows.Context, number: int) -> int:
    """Write a row in the run's transaction."""
    wf.tx.execute("INSERT INTO public.ledger (amount) VALUES (%s)", (number,))
    return number


def replay(wf: flows.Context, steps: int) -> int:
    """Do so many steps and wait for an event."""
    for step in range(steps):
        wf.execute(f"s{step}/v1", nothing, step)
    return wf.wait_for_event("go/v1", "Go", int)


def event(wf: flows.Context, number: int) -> int:
    """Wait for an event."""
    return number + wf.wait_for_event("go/v1", "Go", int)


def sleep(wf: flows.Context, milliseconds: int) -> int:
    """Sleep."""
    wf.sleep("nap/v1", timedelta(milliseconds=milliseconds))
    return milliseconds


FUNCTIONS = {
    "noop": noop, "five": five, "cpu": cpu, "cpu2": cpu, "book": book, "replay": replay,
    "event": event, "sleep": sleep,
}  # fmt: skip


def registry_for(name: str, concurrency: int) -> flows.Registry:
    """Return a registry with one workflow."""
    registry = flows.Registry()
    registry.workflow(name, concurrency=concurrency)(FUNCTIONS[name])
    return registry


def main(dsn: str, name: str, concurrency: str = "10", shards: str = "1", core: str = "") -> None:
    """Work until SIGTERM; print `ready` once runs can be claimed.

    With a core it keeps to that, as a supervisor has the processes of a pinned workflow do.
    With `bare` for a DSN, time so many bare loops without an engine: `bare LOOPS TIMES`.
    """
    if dsn == "bare":
        began_s = monotonic()
        for _ in range(int(concurrency)):
            burn(int(name))
        print(monotonic() - began_s)
        return
    if core:
        cores.keep_to(int(core))
    config = flows.DBConfig(shard_count=int(shards))
    worker = flows.Worker(registry_for(name, int(concurrency)), dsn, db_config=config)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())

    def announce() -> None:
        worker.ready.wait()
        print("ready", flush=True)

    threading.Thread(target=announce, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
