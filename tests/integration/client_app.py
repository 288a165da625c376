"""Workflows that clients begin."""

from __future__ import annotations

from flows import Context, Registry

__all__ = ["double", "refuse", "registry", "waiter"]

registry = Registry()


@registry.workflow("double")
def double(wf: Context, number: int) -> int:
    """Return twice a number."""
    return wf.execute("double/v1", lambda: 2 * number)


@registry.workflow("refuse")
def refuse(wf: Context) -> None:
    """Fail."""
    raise ValueError("not this one")


@registry.workflow("waiter")
def waiter(wf: Context) -> str:
    """Return the payload of the event `Name`."""
    return wf.wait_for_event("name/v1", "Name", str)
