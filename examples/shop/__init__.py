"""Orders that web services take: each is a row and a run, committed together.

`examples.shop.with_fastapi` and `examples.shop.with_django` are two such services; the workflow is
the same, and `flows supervise examples.shop:registry` works it.
"""

from __future__ import annotations

from datetime import timedelta

from flows import Context, Registry

__all__ = ["CREATE_TABLE", "PAID", "registry", "ship"]

PAID = "Paid"

CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS orders (
        run_key text PRIMARY KEY,
        item    text NOT NULL,
        state   text NOT NULL DEFAULT 'placed'
    )
"""

registry = Registry()


@registry.workflow("ship", run_timeout=timedelta(days=30))
def ship(wf: Context, item: str) -> str:
    """Wait until the order is paid, then send it."""
    amount = wf.wait_for_event("paid/v1", PAID, int)
    label = wf.execute("label/v1", print_label, item)
    # In one transaction with the run's own end: never sent twice, never paid and forgotten.
    wf.tx.execute("UPDATE orders SET state = 'sent' WHERE run_key = %s", (str(wf.run_key),))
    return f"{label}, paid {amount}"


def print_label(item: str) -> str:
    """Stand for a call of somebody else's service."""
    return f"1 x {item}"
