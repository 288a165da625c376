"""Options that commands share."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    ParamType = click.ParamType[float]
    InstantType = click.ParamType[datetime]
else:
    ParamType = InstantType = click.ParamType  # generic for type checkers alone, in older versions

__all__ = [
    "DEBUG_KEY",
    "STATUSES",
    "Instant",
    "Seconds",
    "Span",
    "database_options",
    "debug_option",
    "filter_options",
    "is_debug",
    "location_options",
]

DEBUG_KEY = "debug"
"""Where the root's `obj` holds whether tracebacks are wanted."""

F = TypeVar("F", bound="Callable[..., Any]")

_YEAR_S = 31_536_000

STATUSES = (
    "queued",
    "running",
    "sleeping",
    "waiting_event",
    "completed",
    "failed",
    "cancelled",
)
"""What a run can be."""


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


class Span(ParamType):
    """A span of time as it is typed, in seconds: `90s`, `2h`, `1d12h`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return its seconds; what is no span is refused."""
        from flows.cli.quantities import parse_span  # noqa: PLC0415  only where one is given

        try:
            return value if isinstance(value, float) else parse_span(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class Instant(InstantType):
    """An instant as ISO 8601 writes it, with its offset from UTC."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it; what is none, or has no offset, is refused."""
        try:
            instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2027-01-31T09:00+01:00.", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no offset from UTC; add Z or +01:00.", param, ctx)
        return instant


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


_FILTERS = (
    click.option("--workflow", metavar="NAME", help="Only runs of this workflow."),
    click.option(
        "--status",
        "statuses",
        type=click.Choice(STATUSES),
        multiple=True,
        help="Only runs of this status; may be given several times.",
    ),
    click.option(
        "--older-than", type=Span(), help="Only runs that were begun longer ago, as in 2h or 30d."
    ),
    click.option("--newer-than", type=Span(), help="Only runs that were begun since then."),
    click.option(
        "--error",
        metavar="TEXT",
        help="Only runs whose error has this text, in capitals or not;"
        " without --status, failed ones in a list.",
    ),
    click.option(
        "--tag",
        "tags",
        metavar="TAG",
        multiple=True,
        help="Only runs with this tag; several times, with all of them.",
    ),
)


def filter_options(function: F) -> F:
    """Add the options that choose runs; `RunFilter.of` takes what the command gets."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001  click's
    if value:
        ctx.find_root().ensure_object(dict)[DEBUG_KEY] = True
