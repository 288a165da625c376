"""`flows schedules`: look at schedules, and pause, resume or delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import debug_option, location_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.client import Client
    from flows.database import Connection

__all__ = ["delete", "list_", "pause", "preview", "resume", "schedules", "show"]


@click.group()
@debug_option
def schedules() -> None:
    """Look at schedules, and pause, resume or delete them.

    Schedules are created by programs, with Client.schedule_tx.
    """


@schedules.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@location_options
@debug_option
def list_(*, as_json: bool, dsn: str | None, schema: str) -> None:
    """List all schedules: rule, next time, and what is wrong with them."""
    from flows.cli import schedule_page as page  # noqa: PLC0415  --help loads no driver

    found = _with_client(dsn, schema, lambda _, tx: page.read_schedules(tx, schema))
    _write(page.as_json(found) if as_json else page.table_of(found))


@schedules.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@location_options
@debug_option
def show(*, name: str, as_json: bool, dsn: str | None, schema: str) -> None:
    """Show all that is known of the schedule NAME."""
    from flows.cli import schedule_page as page  # noqa: PLC0415

    found = _with_client(dsn, schema, lambda _, tx: page.read_schedule(tx, schema, name))
    _write(page.as_json(found) if as_json else page.page_of(found))


@schedules.command()
@click.argument("name")
@click.option("--count", type=click.IntRange(1, 10_000), default=10, show_default=True)
@location_options
@debug_option
def preview(*, name: str, count: int, dsn: str | None, schema: str) -> None:
    """Print when the schedule NAME is due next, in its zone and in UTC."""
    from flows.cli import schedule_page as page  # noqa: PLC0415

    found = _with_client(dsn, schema, lambda _, tx: page.read_schedule(tx, schema, name))
    _write(page.preview_of(found, count))


@schedules.command()
@click.argument("name")
@location_options
@debug_option
def pause(*, name: str, dsn: str | None, schema: str) -> None:
    """Begin no more runs for the schedule NAME; those in progress go on."""
    _with_client(dsn, schema, lambda client, tx: client.pause_schedule_tx(tx, name))
    click.echo(f"paused {name}", err=True)


@schedules.command()
@click.argument("name")
@location_options
@debug_option
def resume(*, name: str, dsn: str | None, schema: str) -> None:
    """Fire the schedule NAME again, from its next time on."""
    _with_client(dsn, schema, lambda client, tx: client.resume_schedule_tx(tx, name))
    click.echo(f"resumed {name}", err=True)


@schedules.command()
@click.argument("name")
@location_options
@debug_option
def delete(*, name: str, dsn: str | None, schema: str) -> None:
    """Remove the schedule NAME; runs in progress go on."""
    _with_client(dsn, schema, lambda client, tx: client.delete_schedule_tx(tx, name))
    click.echo(f"deleted {name}", err=True)


def _with_client(dsn: str | None, schema: str, ask: Callable[[Client, Connection], Any]) -> Any:
    from flows.cli.output import Refusal  # noqa: PLC0415
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.client import Client  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.errors import UnknownScheduleError  # noqa: PLC0415
    from flows.schema import check_version  # noqa: PLC0415

    config = DBConfig(schema=schema)
    with open_session(dsn) as session:
        check_version(session.connection, config)
        try:
            with session.connection.transaction():
                return ask(Client(db_config=config), session.connection)
        except UnknownScheduleError as error:
            raise Refusal(f"{error} in {session.place}; see: flows schedules list") from error


def _write(text: str) -> None:
    from flows.cli.output import write  # noqa: PLC0415

    write(text)
