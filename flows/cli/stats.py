"""`flows stats`: how many runs each workflow has, how late they are, how many end."""

from __future__ import annotations

import click

from flows.cli.options import Span, debug_option, location_options

__all__ = ["stats"]


@click.command()
@click.option("--workflow", metavar="NAME", help="Only this workflow.")
@click.option(
    "--window",
    type=Span(),
    default="5m",
    show_default=True,
    help="Count the runs that have ended since then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@location_options
@debug_option
def stats(
    *, workflow: str | None, window: float, as_json: bool, dsn: str | None, schema: str
) -> None:
    """Show how many runs of each workflow there are, by status, how late, and how many end.

    It looks at a bounded number of runs: "~" is an estimate, and with "+" there may be more.
    """
    from flows.cli.output import as_json_text, write  # noqa: PLC0415
    from flows.cli.run_filter import RunFilter  # noqa: PLC0415
    from flows.cli.run_stats import read_stats, table  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.errors import ConfigError  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    chosen = RunFilter.of(
        workflow=workflow, statuses=(), older_than=None, newer_than=None, error=None
    )
    if window < 1:
        raise ConfigError("--window must be a second at least")
    with open_session(dsn) as session:
        check_version(session.connection, config)
        found = read_stats(session.connection, config.schema, chosen, window)
    write(as_json_text(found) if as_json else table(found))
