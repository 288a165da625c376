"""Any value that JSON can hold, printed so that a person can read it.

A list of records becomes a table. A record becomes a line per field, and the records within it
tables below. Numbers stand on the right, with the decimals that the column needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_value"]

Record = Mapping[str, Any]

_PLAIN_WIDTH = 80
_MOST_DECIMALS = 3


def print_value(title: str, value: Any, file: IO[str], width: int | None = None) -> None:
    """Print `value` under a title.

    Args:
        title: the heading.
        value: plain builtins.
        file: where to; text that is not for a terminal is 80 columns wide.
        width: instead of the terminal's width.
    """
    if width is None and not file.isatty():
        width = _PLAIN_WIDTH
    console = Console(file=file, width=width, highlight=False)
    console.print(Text(title, style="bold"))
    _print(console, value)


def _print(console: Console, value: Any) -> None:
    if _is_records(value):
        console.print(_table(value))
    elif isinstance(value, Mapping):
        _print_record(console, value)
    elif isinstance(value, list):
        for item in value:
            console.print(Text(_cell(item)))
    else:
        console.print(Text(_cell(value)))


def _print_record(console: Console, record: Record) -> None:
    nested = {name: value for name, value in record.items() if _is_nested(value)}
    flat = {str(name): value for name, value in record.items() if name not in nested}
    if flat:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for name, value in flat.items():
            grid.add_row(Text(name), Text(_cell(value)))
        console.print(grid)
    for name, value in nested.items():
        console.print()
        console.print(Text(str(name), style="bold"))
        _print(console, value)


def _table(records: Sequence[Record]) -> Table:
    """Return a table of records; a field that some lack is left empty there."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    columns = list(dict.fromkeys(name for record in records for name in record))
    cells: list[list[str]] = []
    for name in columns:
        values = [record.get(name) for record in records]
        is_number = all(value is None or _is_number(value) for value in values)
        decimals = max((_decimals(value) for value in values), default=0)
        table.add_column(
            Text(str(name)),
            justify="right" if is_number else "left",
            # A number that is broken over two lines is two numbers.
            no_wrap=is_number,
            overflow="fold",
        )
        cells.append([_cell(value, decimals) for value in values])
    for row in zip(*cells, strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, Mapping) for x in value)


def _is_nested(value: Any) -> bool:
    return _is_records(value) or (isinstance(value, Mapping) and bool(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decimals(value: Any) -> int:
    if not isinstance(value, float):
        return 0
    return len(f"{value:.{_MOST_DECIMALS}f}".rstrip("0").partition(".")[2])


def _cell(value: Any, decimals: int | None = None) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() if decimals:
            return f"{value:.{decimals}f}"
        case float():
            return f"{value:.{_decimals(value) if decimals is None else decimals}f}"
        case Mapping() | list():
            return _inline(value)
        case _:
            return str(value)


def _inline(value: Record | list[Any]) -> str:
    """Return a value within a cell: plain lists by commas, anything deeper as JSON."""
    if isinstance(value, list) and not any(isinstance(item, Mapping | list) for item in value):
        return ", ".join(_cell(item) for item in value)
    return json.dumps(value, ensure_ascii=False, default=str)
