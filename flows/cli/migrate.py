"""`flows migrate`: bring the tables to the version of this code."""

from __future__ import annotations

import click

from flows.cli.options import debug_option, location_options

__all__ = ["migrate"]


@click.command()
@location_options
@click.option(
    "--print",
    "prints",
    is_flag=True,
    help="Print the SQL of the whole schema, for a new database, and connect to none.",
)
@click.option(
    "--citus",
    is_flag=True,
    help="Distribute the tables over the nodes of Citus, too. DSN is the coordinator's.",
)
@debug_option
def migrate(*, dsn: str | None, schema: str, prints: bool, citus: bool) -> None:
    """Create the tables, or bring them to the version of this program.

    Running it again does nothing. Several may run at once.
    """
    from flows.cli.output import write  # noqa: PLC0415  --help loads no database driver
    from flows.cli.session import open_session  # noqa: PLC0415
    from flows.config import DBConfig  # noqa: PLC0415
    from flows.schema import (  # noqa: PLC0415
        SCHEMA_VERSION,
        citus_schema_sql_for,
        schema_sql_for,
    )
    from flows.schema import migrate as apply_migrations  # noqa: PLC0415

    config = DBConfig(schema=schema)
    if prints:
        write(schema_sql_for(config.schema))
        if citus:
            write("\n" + citus_schema_sql_for(config.schema))
        return
    with open_session(dsn, may_create=not citus) as session:
        applied = apply_migrations(session.connection, config, citus=citus)
        where = f"schema {config.schema!r} of {session.place}"
    for version in applied:
        write(f"applied version {version} to {where}\n")
    if not applied:
        write(f"{where} is up to date: version {SCHEMA_VERSION}\n")
    if citus:
        write(f"{where} is distributed\n")
