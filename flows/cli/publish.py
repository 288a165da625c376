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
    """Publish EVENT of the run KEY, or of that id; the run goes on if it waits for it.

    JSON is the payload, null if not given; "-" reads it from stdin. A payload that was published
    before under the same name is replaced, but not what a wait has returned already.
    """
    from flows.cli.documents import (  # noqa: PLC0415  --help loads no database driver
        check_text,
        parse_document,
        read_document,
    )
    from flows.cli.run_keys import find_key, read_key  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.client import Client  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.run_operations import OVER  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    named = read_key(key)
    name = check_text("the event's name", event)
    payload = parse_document(read_document("the payload", document))
    with open_session(dsn) as session:
        check_version(session.connection, config)
        run_key = find_key(session, config, named)
        client = Client(db_config=config)
        with session.connection.transaction():
            client.publish_event_tx(session.connection, run_key, name, payload)
            status = client.get_run_status_tx(session.connection, run_key).status
    if status in OVER:
        unless = "" if status == "completed" else ", unless it is retried"
        click.echo(f"flows: the run is {status}: nobody will read it{unless}", err=True)
