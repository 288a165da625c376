"""The order in which things happened in a run: by their places, and else by their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

__all__ = ["in_order"]

T = TypeVar("T")


def in_order(
    items: Sequence[T],
    at: Callable[[T], datetime],
    placed: Callable[[T], tuple[int, int] | None],
) -> list[T]:
    """Return items in the order in which they happened.

    Args:
        items: what happened.
        at: when, which may be wrong by what a statement takes.
        placed: claim and place, of what was counted; that is in the order of these. What has none
            goes by its time, behind all that had happened by then.
    """
    counted = sorted(
        ((place, item) for item in items if (place := placed(item)) is not None),
        key=lambda pair: pair[0],
    )
    timed: list[tuple[datetime, T]] = []
    for _, item in counted:
        latest = timed[-1][0] if timed else at(item)
        timed.append((max(latest, at(item)), item))
    timed += [(at(item), item) for item in items if placed(item) is None]
    return [item for _, item in sorted(timed, key=lambda pair: pair[0])]
