"""An application for the tests of `flows supervise`: its runs keep a diary, and wait at gates."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import select
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from flows import clock
from flows.codecs import MsgspecCodec
from flows.context import Context
from flows.registry import Registry
from flows.retry import RetryPolicy, RunRetryPolicy

registry = Registry()
empty = Registry()
not_a_registry = {"registry": registry}


class Order(msgspec.Struct):
    name: str
    count: int = 1


def tell(event: str, who: str, **details: Any) -> None:
    line = json.dumps({"event": event, "who": who, "pid": os.getpid(), **details})
    os.write(int(os.environ["FLOWS_DIARY_FD"]), line.encode() + b"\n")


def pass_gate(gate: str) -> None:
    """Wait until somebody opens the named pipe for writing, and read what is written."""
    Path(gate).read_text()


@registry.workflow("double")
def double(wf: Context, number: int) -> int:
    return wf.execute("double/v1", lambda value: value * 2, number)


@registry.workflow("report", codec=MsgspecCodec(), processes=2)
def report(wf: Context, order: Order) -> dict[str, Any]:
    rows = [{"item": order.name, "row": row} for row in range(order.count)]
    return {"name": order.name, "rows": rows}


@registry.workflow("held", concurrency=2)
def held(wf: Context, gate: str) -> str:
    def hold() -> None:
        tell("executing", "held", run=str(wf.run_id))
        pass_gate(gate)

    wf.execute("gate/v1", hold)
    return "passed"


@registry.workflow("held-in-transaction")
def held_in_transaction(wf: Context, gate: str) -> str:
    wf.tx.execute("SELECT 1")
    tell("executing", "held-in-transaction", run=str(wf.run_id))
    pass_gate(gate)
    return "passed"


@registry.workflow("querying")
def querying(wf: Context, marker: str) -> str:
    tell("executing", "querying")
    if not Path(marker).exists():
        Path(marker).touch()
        wf.tx.execute("SELECT pg_sleep(600)")
    return "answered"


@registry.workflow("failing")
def failing(wf: Context, message: str) -> None:
    raise ValueError(message)


@registry.workflow("napping")
def napping(wf: Context) -> str:
    tell("executing", "napping")
    wf.sleep("nap/v1", timedelta(milliseconds=300))
    return "rested"


@registry.workflow("logging")
def logs(wf: Context) -> None:
    wf.execute("log/v1", log_something)


def log_something() -> None:
    sys.stdout.write("printed\n")
    logger = logging.getLogger("app")
    logger.info("in a step")
    try:
        int("caught")
    except ValueError:
        logger.warning("with an exception", exc_info=True)
    logger.warning("with more", extra={"order": 7, "by": {("a", "pair"): "\udce9"}})
    logger.warning("long: %s", "\u0001" * 100_000)


@registry.workflow("frugal", max_runs=3)
def frugal(wf: Context, gate: str | None) -> int:
    tell("executing", "frugal")
    if gate:
        pass_gate(gate)
    return os.getpid()


@registry.workflow("stalled", hang_timeout=timedelta(seconds=2))
def stalled(wf: Context, marker: str) -> str:
    tell("executing", "stalled")
    if not Path(marker).exists():
        Path(marker).touch()
        wf.execute("stall/v1", lambda: ctypes.PyDLL(None).sleep(600))
    return "done"


@registry.workflow("stuck", concurrency=2, run_retry=RunRetryPolicy(2))
def stuck(wf: Context, gate: str) -> int:
    """Wait for a gate in a step without end, at the first attempt and under no lock."""
    tell("executing", "stuck", attempt=wf.attempt)
    if wf.attempt == 1:
        limit = None if gate else timedelta(seconds=0.1)
        wf.execute("gate/v1", wait_at, gate, RetryPolicy(step_timeout=limit))
    return os.getpid()


def wait_at(gate: str) -> None:
    if gate:
        pass_gate(gate)
    else:
        select.select([], [], [], 600)


@registry.workflow("deaf")
def deaf(wf: Context, marker: str) -> str:
    """Keep the interpreter's lock in a step whose time is soon up, once."""
    tell("executing", "deaf")
    if not Path(marker).exists():
        Path(marker).touch()
        limit = RetryPolicy(step_timeout=timedelta(seconds=0.1))
        wf.execute("deaf/v1", lambda: ctypes.PyDLL(None).sleep(600), retry=limit)
    return "done"


@registry.workflow("busy", hang_timeout=timedelta(seconds=2))
def busy(wf: Context, seconds: float) -> int:
    tell("executing", "busy")
    until_s = clock.monotonic() + seconds
    turns = 0
    while clock.monotonic() < until_s:
        turns += 1
    return os.getpid()


@registry.workflow("greedy")
def greedy(wf: Context, marker: str) -> str:
    tell("executing", "greedy")
    if not Path(marker).exists():
        Path(marker).touch()
        resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
        wf.execute("hoard/v1", lambda: len(bytes(1 << 30)))
    return "done"


@registry.workflow("faulty")
def faulty(wf: Context, marker: str) -> str:
    tell("executing", "faulty")
    if not Path(marker).exists():
        Path(marker).touch()
        ctypes.string_at(0)
    return "done"


@registry.workflow("poisoned", concurrency=10)
def poisoned(wf: Context, dose: int) -> int:
    return wf.execute("swallow/v1", swallow, dose)


def swallow(dose: int) -> int:
    if dose < 0:
        # A real fault: a signal that is sent comes when it likes, to whichever thread.
        ctypes.string_at(0)
    return sum(range(1000 + dose))


@registry.workflow("hoarder")
def hoarder(wf: Context) -> int:
    return wf.execute("hoard/v1", lambda: len(os.urandom(1 << 20) * 4096))


@registry.workflow("fleeting", retention=timedelta(milliseconds=1))
def fleeting(wf: Context) -> None:
    """Not kept once it is over."""


@registry.workflow("deadly", max_crashes=100)
def deadly(wf: Context) -> None:
    tell("executing", "deadly")
    os._exit(3)
