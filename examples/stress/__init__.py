"""A load for flows, and a measurement of what becomes of it: is every run completed, how soon?

    flows supervise examples.stress:registry          the worker side, in one terminal
    python -m examples.stress generate                the load and its report, in another

`generate` begins runs of four workflows, waits for them and reports how long they took; its exit
code is 1 if one failed or was lost. `work` is the worker side without a supervisor, `report` looks
at runs begun before.

    stress_a (JSONCodec)    many runs that do nothing but go through the database
    stress_b (MsgspecCodec) fewer, with a little work and a short durable sleep
    stress_c (OrjsonCodec)  fewer again, with more of both
    stress_d (MsgspecCodec as JSON) a few runs that keep a processor busy

Kill any of the processes at any time: nothing is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows import Registry

    registry: Registry

__all__ = ["registry"]


def __getattr__(name: str) -> Registry:
    """Make `registry` when it is asked for: only then do the variables that shape it matter."""
    if name != "registry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .workflows import registry_by_environment  # noqa: PLC0415

    return registry_by_environment()
