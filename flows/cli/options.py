"""Options that commands share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEBUG_KEY",
    "Seconds",
    "database_options",
    "debug_option",
    "is_debug",
    "location_options",
]

DEBUG_KEY = "debug"
"""Where the root's `obj` holds whether tracebacks are wanted."""

F = TypeVar("F", bound="Callable[..., Any]")

_YEAR_S = 31_536_000


class Seconds(click.FloatRange):
    """A duration in seconds, of a year at most: more than that no wait can be asked for."""

    def __init__(self, least: float) -> None:
        """Take a number from `least`."""
        super().__init__(min=least, max=_YEAR_S)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; what is none, though it reads like one, is refused."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def debug_option(function: F) -> F:
    """Add `--debug`, which may stand before and after the command's name."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )(function)


def is_debug() -> bool:
    """Tell whether `--debug` was given to the command that is running."""
    settings = click.get_current_context().find_root().obj
    return bool(settings and settings.get(DEBUG_KEY))


_dsn = click.option(
    "--dsn",
    metavar="DSN",
    help="The database. By default $FLOWS_DATABASE_URL, then $DATABASE_URL,"
    " then an embedded one in .flows/pg.",
)
_schema = click.option(
    "--schema", default="flows", show_default=True, help="The schema of the tables."
)
_shards = click.option(
    "--shards",
    type=int,
    default=1,
    show_default=True,
    help="Shards per workflow; the same for all programs of one database.",
)


def location_options(function: F) -> F:
    """Add `--dsn` and `--schema`; the command gets `dsn` and `schema`."""
    return _dsn(_schema(function))


def database_options(function: F) -> F:
    """Add `--dsn`, `--schema` and `--shards`; the command gets `dsn`, `schema` and `shards`."""
    return location_options(_shards(function))


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001  click's
    if value:
        ctx.find_root().ensure_object(dict)[DEBUG_KEY] = True
