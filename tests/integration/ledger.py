"""Workflows that write a business table through `wf.tx`, which has the fixture `ledger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows import Context, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows import RunKey
    from tests.running import Runs

__all__ = ["ENTRIES", "STEPS", "TABLES", "enter", "entries", "execute"]

TABLES = (
    "CREATE TABLE ledger (entry text PRIMARY KEY)",
    "CREATE TABLE items (entry text REFERENCES ledger DEFERRABLE INITIALLY DEFERRED)",
)
ENTRIES = "SELECT entry FROM ledger ORDER BY entry"
STEPS = "SELECT step_key, status FROM flows.steps ORDER BY step_key"


def enter(wf: Context, entry: str) -> str:
    """Write an entry in the attempt's transaction, and return it."""
    wf.tx.execute("INSERT INTO ledger VALUES (%s)", (entry,))
    return entry


def execute(runs: Runs, function: Callable[[Context], Any], **options: Any) -> RunKey:
    """Execute a run of a workflow of its own."""
    registry = Registry()
    return runs.execute(registry, registry.workflow("demo", **options)(function))


def entries(runs: Runs) -> list[str]:
    """Return what is committed."""
    return [entry for (entry,) in runs.rows(ENTRIES)]
