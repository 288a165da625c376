"""A table where it fits, perhaps with less in it, and else a block of lines for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

__all__ = ["Column", "table_or_blocks"]

_GAP = 3
"""Characters between two columns."""


class Column(NamedTuple):
    """What stands above a column, or before a line of a block.

    Attributes:
        name: above the column.
        right: whether values stand on the right.
        least: characters to which longer values may be broken; 0 for whole ones only.
        drop: which to leave out of a table that does not fit, 1 before 2; 0 for never.
        label: before the line of a block, where that is not the name.
    """

    name: str
    right: bool = False
    least: int = 0
    drop: int = 0
    label: str = ""


def table_or_blocks(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int
) -> RenderableType:
    """Return rows for a terminal of `width` columns; the first value of each names it."""
    shown = list(zip(columns, *rows, strict=True))
    for column in sorted((each for each in columns if each.drop), key=lambda each: each.drop):
        if _width(shown) > width:
            shown = [each for each in shown if each[0] is not column]
    if _width(shown) > width:
        return Group(*(_block(columns, row) for row in rows))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, *_ in shown:
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.least,
        )
    for cells in zip(*(values for _, *values in shown), strict=True):
        table.add_row(*cells)
    return table


def _width(shown: Sequence[Any]) -> int:
    """Return how wide a table of these columns has to be, each with its values."""
    needed = _GAP * (len(shown) - 1)
    for column, *values in shown:
        widest = max(len(column.name), *(value.cell_len for value in values), 0)
        needed += min(widest, max(column.least, len(column.name))) if column.least else widest
    return needed


def _block(columns: Sequence[Column], row: Sequence[Text]) -> RenderableType:
    name, *values = row
    lines = [Text("\n").append_text(name)]
    for column, value in zip(columns[1:], values, strict=True):
        if value:
            label = column.label or column.name
            lines.append(Text.assemble("  ", (f"{label}: ", "dim"), value))
    return Group(*lines)
