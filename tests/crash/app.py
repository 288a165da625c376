"""A worker as a process: `python -m tests.crash.app DSN DIARY_FD [STAGE[=PIPE] …]`.

It keeps a diary of what it has reached. At the stages it is given it stops the first time, for
ever or until somebody writes to a named pipe.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg

from flows import Context, Registry, Worker

__all__ = ["registry"]

registry = Registry()


@dataclass
class This:
    """What this process was told."""

    dsn: str = ""
    diary_fd: int = -1
    stages: dict[str, str] = field(default_factory=dict)


this = This()


def tell(event: str) -> None:
    os.write(this.diary_fd, json.dumps({"event": event}).encode() + b"\n")


def reach(stage: str) -> None:
    """Tell that a stage is reached; stop there if this process is to."""
    tell(stage)
    gate = this.stages.pop(stage, None)
    if gate == "":
        threading.Event().wait()
    elif gate is not None:
        Path(gate).read_bytes()


def effect(name: str) -> str:
    """Do something outside of all transactions of the engine, which is counted."""
    with psycopg.connect(this.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO executed (step) VALUES (%s)", (name,))
    reach(name)
    return name


def write(wf: Context, name: str) -> None:
    wf.tx.execute("INSERT INTO ledger (run_id, entry) VALUES (%s, %s)", (wf.run_id, name))


@registry.workflow("plain")
def plain(wf: Context) -> list[str]:
    return [wf.execute(name, effect, name) for name in ("first", "second")]


def _booked(wf: Context) -> list[str]:
    def book(name: str) -> str:
        write(wf, name)
        return effect(name)

    done = wf.execute("first", effect, "first")
    results = [done, wf.execute("second", book, "second"), wf.execute("third", book, "third")]
    reach("end")
    return results


@registry.workflow("booked")
def booked(wf: Context) -> list[str]:
    return _booked(wf)


@registry.workflow("booked-by-step", commit="step")
def booked_by_step(wf: Context) -> list[str]:
    return _booked(wf)


@registry.workflow("charging")
def charging(wf: Context) -> str:
    reach("begun")
    idempotency_key = str(wf.random_uuidv7("charge"))
    wf.execute("charge", effect, f"charge {idempotency_key}")
    return idempotency_key


def _transfer(wf: Context, number: int) -> int:
    """Move an amount between two accounts, in two steps with a nap in between."""

    def move(account: int, amount: int) -> None:
        write(wf, f"{number} {amount:+d}")
        wf.tx.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, account))

    amount = wf.execute("amount", lambda given: given + 1, number)
    wf.execute("debit", lambda: move(number % 5, -amount))
    if number % 2:
        wf.sleep("nap", timedelta(milliseconds=1))
    wf.execute("credit", lambda: move(number % 7, amount))
    return amount


@registry.workflow("transfer", concurrency=4)
def transfer(wf: Context, number: int) -> int:
    return _transfer(wf, number)


@registry.workflow("transfer-by-step", commit="step", concurrency=4)
def transfer_by_step(wf: Context, number: int) -> int:
    return _transfer(wf, number)


@registry.workflow("napping")
def napping(wf: Context) -> str:
    reach("awake")
    wf.sleep("night", timedelta(hours=8))
    return "rested"


def main(dsn: str, diary_fd: str, *stages: str) -> None:
    this.dsn, this.diary_fd = dsn, int(diary_fd)
    for stage in stages:
        name, _, gate = stage.partition("=")
        this.stages[name] = gate
    worker = Worker(registry, dsn, graceful_shutdown_timeout=timedelta(seconds=5))

    def announce() -> None:
        worker.ready.wait()
        tell("ready")

    threading.Thread(target=announce, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
