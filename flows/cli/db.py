"""`flows db`: the embedded server of the present folder."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from flows.cli.options import debug_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["db", "start", "stop", "url"]


@click.group()
@debug_option
def db() -> None:
    """Start, stop and find the embedded database in .flows/pg of the present folder."""


@db.command()
@debug_option
def url() -> None:
    """Print the DSN of the server that runs."""
    from flows import embedded  # noqa: PLC0415  --help loads no database driver
    from flows.cli.output import write  # noqa: PLC0415

    with _home() as home:
        write(f"{embedded.url(home)}\n")


@db.command(short_help="Start the server and print its DSN.")
@debug_option
def start() -> None:
    """Start the server, which then runs until "flows db stop", and print its DSN.

    The database is created where there is none. One that runs is kept running.
    """
    from flows import embedded  # noqa: PLC0415
    from flows.cli.output import write  # noqa: PLC0415

    with _home() as home, embedded.start(home, keep=True) as server:
        write(f"{server.dsn}\n")


@db.command()
@debug_option
def stop() -> None:
    """Stop the server now, whoever uses it; the data stays."""
    from flows import embedded  # noqa: PLC0415
    from flows.cli.output import write  # noqa: PLC0415

    with _home() as home:
        was_running = embedded.stop(home)
    write(f"stopped the server of {home}\n" if was_running else f"no server runs in {home}\n")


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """Yield the folder of the embedded database; it may be another user's.

    Raises:
        EmbeddedError: it cannot be used.
    """
    from flows.embedded import default_home  # noqa: PLC0415
    from flows.errors import EmbeddedError  # noqa: PLC0415

    home = default_home()
    try:
        yield home
    except OSError as error:
        raise EmbeddedError(
            f"cannot use the embedded database in {home}: {error.strerror}; run flows as its owner"
        ) from error
