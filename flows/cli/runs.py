"""`flows runs`: look at runs, and change them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flows.cli.options import debug_option, location_options
from flows.cli.run_commands import cancel, fork, retry
from flows.cli.run_listing import list_runs

if TYPE_CHECKING:
    from flows.cli.run_details import RunDetails

__all__ = ["runs", "show"]


@click.group()
@debug_option
def runs() -> None:
    """Look at runs, cancel them, try them again, go on from one of their steps.

    A KEY is the key of a run, or its id alone.
    """


for _command in (list_runs, cancel, retry, fork):
    runs.add_command(_command)


@runs.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON, nothing shortened.")
@location_options
@debug_option
def show(*, key: str, as_json: bool, dsn: str | None, schema: str) -> None:
    """Show the run KEY: its state, input and output, and what happened in it.

    Times in the list are counted from when the run was begun; "took" is the last try's.
    """
    from flows.cli.output import as_json_text, write  # noqa: PLC0415  --help loads no driver
    from flows.cli.run_details import read_run  # noqa: PLC0415
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    named = read_key(key)
    with open_session(dsn) as session:
        check_version(session.connection, config)
        run_key = find_key(session, config, named)
        run = read_run(session.connection, config.schema, run_key)
    write(as_json_text(run) if as_json else _as_page(run))


def _as_page(run: RunDetails) -> str:
    from flows.cli.run_page import page_of  # noqa: PLC0415

    return page_of(run, on_terminal=sys.stdout is not None and sys.stdout.isatty())
