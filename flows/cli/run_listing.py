"""`flows runs list`: pages of runs, chosen by workflow, status, age and error."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.options import debug_option, filter_options, location_options

__all__ = ["list_runs"]


@click.command("list", short_help="List runs, the last begun first.")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="Runs of a page.",
)
@click.option("--after", metavar="KEY", help="Go on after this run, the last of the page before.")
@click.option("--json", "as_json", is_flag=True, help="Print the page as JSON.")
@location_options
@debug_option
def list_runs(
    *, limit: int, after: str | None, as_json: bool, dsn: str | None, schema: str, **options: Any
) -> None:
    """List runs, the last begun first, a page at a time."""
    from flows.cli.output import as_json_text, write  # noqa: PLC0415  --help loads no driver
    from flows.cli.run_filter import RunFilter  # noqa: PLC0415
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.run_list import read_page, table  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    chosen = RunFilter.of(**options).for_list()
    named = None if after is None else read_key(after)
    with open_session(dsn) as session:
        check_version(session.connection, config)
        start = None if named is None else find_key(session, config, named)
        page = read_page(session.connection, config.schema, chosen, limit, start)
    if as_json:
        write(as_json_text(page))
    else:
        write(table(page) if page.runs else "no runs\n")
    if page.next is not None and not as_json:
        click.echo(f"flows: there are more: --after {page.next}", err=True)
