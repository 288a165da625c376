"""`flows publish`: publish an event of a run."""

from __future__ import annotations

import click

from flows.cli.options import debug_option, location_options

__all__ = ["publish"]


@click.command()
@click.argument("key")
@click.argument("event")
@click.argument("document", metavar="[JSON]", required=False)
@location_options
@debug_option
def publish(*, key: str, event: str, document: str | None, dsn: str | None, schema: str) -> None:
    """Publish EVENT of the run KEY; the run goes on if it waits for it.

    JSON is the payload, null if not given; "-" reads it from stdin. A payload that was published
    before under the same name is replaced, but not what a wait has returned already.
    """
    from flows.cli.documents import (  # noqa: PLC0415  --help loads no database driver
        check_text,
        parse_document,
        read_document,
    )
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.client import Client  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.ids import RunKey  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    run_key = RunKey.parse(check_text("the run key", key))
    name = check_text("the event's name", event)
    payload = parse_document(read_document("the payload", document))
    with open_session(dsn) as session:
        check_version(session.connection, config)
        with session.connection.transaction():
            Client(db_config=config).publish_event_tx(session.connection, run_key, name, payload)
