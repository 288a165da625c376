"""The application that `benchmarks.supervisor` supervises; the environment says which."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from flows import Context, Registry
from flows.clock import StopSignal

__all__ = ["registry"]

registry = Registry()

BALLAST = [bytes([number % 251]) * 1000 for number in range(int(os.environ.get("BALLAST_KB", "0")))]
"""Memory that is really touched, in objects of a kilobyte."""

for name in os.environ.get("IMPORTS", "").split():
    importlib.import_module(name)


HOLD = os.environ.get("HOLD", "")
"""A file; while it is there, steps do not return."""


def noop(number: int) -> int:
    """Do nothing, for as long as we are held."""
    pause = StopSignal()
    while HOLD and Path(HOLD).exists():
        pause.wait(0.001)
    return number


def work(wf: Context, number: int) -> Any:
    """Run one step, and leave a row of it in the same transaction."""
    value = wf.execute("noop", noop, number)
    if os.environ.get("LEDGER"):
        wf.tx.execute("INSERT INTO ledger (run_id) VALUES (%s)", (str(wf.run_id),))
    return value


for number in range(int(os.environ.get("WORKFLOWS", "1"))):
    registry.workflow(f"work{number}", concurrency=int(os.environ.get("CONCURRENCY", "4")))(work)
