"""`flows prune`: delete runs that ended long ago."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from flows.cli.options import Span, debug_option, location_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.cli.run_filter import RunFilter
    from flows.cli.session import Session
    from flows.config import DBConfig

__all__ = ["prune"]

ENDED = ("completed", "failed", "cancelled")


@click.command()
@click.option(
    "--older-than",
    type=Span(),
    required=True,
    help="Only runs that ended longer ago, as in 30d.",
)
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice(ENDED),
    multiple=True,
    help="Only runs of this status; may be given several times.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@location_options
@debug_option
def prune(
    *,
    older_than: float,
    workflow: str | None,
    statuses: tuple[str, ...],
    yes: bool,
    dsn: str | None,
    schema: str,
) -> None:
    """Delete runs that ended long ago, with their steps, waits, events and all that is theirs.

    In small transactions with pauses between them, so that workers keep the database. Unfinished
    runs are never deleted. Ctrl-C ends it between two transactions; it may be run again.
    """
    from flows.cli.output import write  # noqa: PLC0415  --help loads no database driver
    from flows.cli.quantities import duration  # noqa: PLC0415
    from flows.cli.run_commands import confirm  # noqa: PLC0415
    from flows.cli.run_filter import RunFilter  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    chosen = RunFilter.of(
        workflow=workflow, statuses=statuses or ENDED, older_than=None, newer_than=None, error=None
    )
    with open_session(dsn) as session:
        check_version(session.connection, config)
        whose = "all workflows" if workflow is None else f"workflow {workflow!r}"
        which = " or ".join(statuses or ENDED)
        old = f"that ended more than {duration(older_than)} ago"
        confirm(f"delete the {which} runs of {whose} {old} in {session.place}", is_sure=yes)
        deleted = _prune(session, config, chosen, older_than)
    write(f"{_runs(deleted)} deleted\n")


def _prune(session: Session, config: DBConfig, chosen: RunFilter, older_s: float) -> int:
    from flows import clock  # noqa: PLC0415
    from flows.cli.interrupts import interruption  # noqa: PLC0415
    from flows.cli.progress import Progress  # noqa: PLC0415
    from flows.retention import pause_s  # noqa: PLC0415

    total = 0
    is_over = False
    pause = threading.Event()
    try:
        with interruption() as wanted, Progress("deleted", None) as progress:
            began_s = clock.monotonic()
            for deleted in _pages(session, config, chosen, older_s):
                total += deleted
                progress.show(total)
                if wanted:
                    break
                if deleted:
                    pause.wait(pause_s(clock.monotonic() - began_s))
                began_s = clock.monotonic()
            else:
                is_over = True
    finally:
        if not is_over:
            click.echo(f"flows: ended early: {_runs(total)} deleted", err=True)
    if not is_over:
        raise click.Abort
    return total


def _pages(session: Session, config: DBConfig, chosen: RunFilter, older_s: float) -> Iterator[int]:
    """Yield how many runs of each page were deleted."""
    from flows.cli.run_list import shards  # noqa: PLC0415
    from flows.retention import FIRST, prune_page  # noqa: PLC0415

    for shard in shards(session.connection, config.schema, chosen):
        after = FIRST
        while True:
            page = prune_page(
                session.connection, config, shard.name, after, chosen.statuses or ENDED, older_s
            )
            yield page.deleted
            if page.last is None:
                break
            after = page.last


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
