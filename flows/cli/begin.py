"""`flows begin`: begin a run."""

from __future__ import annotations

import contextlib
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import Instant, Span, database_options, debug_option

if TYPE_CHECKING:
    from datetime import datetime

    from flows.registry import Registry

__all__ = ["begin"]


@click.command()
@click.argument("name")
@click.argument("document", metavar="[JSON]", required=False)
@click.option(
    "--target",
    metavar="APP:REGISTRY",
    help="Look the workflow up in an app: its codec is used, and the input must fit its type."
    " Without it any name is taken, and the input is stored as JSON.",
)
@click.option("--delay", type=Span(), metavar="SPAN", help="Start it after 90s, 2h, 1d12h.")
@click.option(
    "--start-at",
    type=Instant(),
    metavar="TIME",
    help="Start it at an instant, as in 2027-01-31T09:00+01:00.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Begin it unless the workflow has a run with this key; print the key of that run.",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    default=0,
    show_default=True,
    help="Of the due runs of a shard those with a higher one are claimed first.",
)
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="What the run is found by.")
@database_options
@debug_option
def begin(
    *,
    name: str,
    document: str | None,
    target: str | None,
    delay: float | None,
    start_at: datetime | None,
    idempotency_key: str | None,
    tags: tuple[str, ...],
    priority: int,
    dsn: str | None,
    schema: str,
    shards: int,
) -> None:
    """Begin a run of the workflow NAME and print its key.

    JSON is its input, null if not given; "-" reads it from stdin. A negative number comes after
    "--", as in: flows begin double -- -5
    """
    from flows.cli.documents import (  # noqa: PLC0415  --help loads no database driver
        input_for,
        parse_document,
        read_document,
    )
    from flows.cli.output import write  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.client import Client  # noqa: PLC0415
    from flows.config import DBConfig, check_workflow_name  # noqa: PLC0415

    config = DBConfig(schema=schema, shard_count=shards)
    text = read_document("the input", document)
    workflow: Any = check_workflow_name(name)
    value = parse_document(text)
    if target is not None:
        workflow = _load(target).get(name)
        value = input_for(workflow, text)
    with open_session(dsn, may_create=True) as session:
        session.make_ready(config)
        with session.connection.transaction():
            key = Client(db_config=config).begin_tx(
                session.connection,
                workflow,
                value,
                delay=None if delay is None else timedelta(seconds=delay),
                start_at=start_at,
                idempotency_key=idempotency_key,
                tags=tags,
                priority=priority,
            )
    write(f"{key}\n")


def _load(target: str) -> Registry:
    from flows.supervisor.application import load_registry  # noqa: PLC0415

    # What the app prints as it is imported would stand beside the key.
    with contextlib.redirect_stdout(sys.stderr):
        return load_registry(target)
