"""The application that `benchmarks.supervisor` supervises; the environment says which."""

from __future__ import annotations

import importlib
import os
from typing import Any

from flows import Context, Registry

__all__ = ["registry"]

registry = Registry()

BALLAST = [bytes([number % 251]) * 1000 for number in range(int(os.environ.get("BALLAST_KB", "0")))]
"""Memory that is really touched, in objects of a kilobyte."""

for name in os.environ.get("IMPORTS", "").split():
    importlib.import_module(name)


def noop(number: int) -> int:
    """Do nothing."""
    return number


def work(wf: Context, number: int) -> Any:
    """Run one step, and leave a row of it in the same transaction."""
    value = wf.execute("noop", noop, number)
    if os.environ.get("LEDGER"):
        wf.tx.execute("INSERT INTO ledger (run_id) VALUES (%s)", (str(wf.run_id),))
    return value


for number in range(int(os.environ.get("WORKFLOWS", "1"))):
    registry.workflow(f"work{number}", concurrency=4)(work)
