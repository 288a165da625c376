"""What needs the database before anything is forked: the tables, and the runs of `--begin`.

Done in a child that ends, so that the supervisor itself never holds a connection.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flows.client import Client
from flows.codecs import JSONCodec
from flows.database import check_same_database, connect
from flows.errors import ConfigError, DecodeError, FlowsError
from flows.schema import check_version, migrate
from flows.stranded import check_shard_count
from flows.supervisor.exits import ExitCode
from flows.supervisor.jobs import Begin
from flows.supervisor.messages import Prepared

if TYPE_CHECKING:
    from flows.database import Connection
    from flows.registry import Registry, Workflow
    from flows.supervisor.child import ChildEnd
    from flows.supervisor.jobs import Prepare, Settings

__all__ = ["parse_begin", "prepare"]


def parse_begin(text: str) -> Begin:
    """Read `NAME=JSON`, or `NAME` for a workflow without input.

    Raises:
        ConfigError: there is no name, or what follows it is not JSON.
    """
    name, equals, document = text.partition("=")
    if not name:
        raise ConfigError(f"--begin {text!r}: expected NAME=JSON")
    if not equals:
        return Begin(name)
    try:
        json.loads(document)
    except ValueError as error:
        raise ConfigError(f"--begin {name}: the input is not JSON: {error}") from error
    return Begin(name, document)


def prepare(registry: Registry, settings: Settings, job: Prepare, end: ChildEnd) -> int:
    """See to the tables, begin the runs and tell which; commits it.

    Raises:
        ConfigError: an input does not fit, the DSN for listening leads elsewhere, or unfinished
            runs are in shards that are not read.
        DatabaseError: the database cannot be reached.
        SchemaError: the tables are missing, or of another version.
    """
    # Before anything is written: a wrong one begins nothing, and migrates nothing.
    inputs = [(each, _input_of(each, registry.get(each.name))) for each in job.begins]
    with connect(settings.dsn, "flows prepare") as connection:
        if settings.listen_dsn is not None:
            check_same_database(connection, settings.listen_dsn)
        if settings.may_migrate:
            migrate(connection, settings.config)
        else:
            check_version(connection, settings.config)
        check_shard_count(connection, settings.config, registry.names())
        row = connection.execute("SELECT statement_timestamp()").fetchone()
        assert row is not None
        begun = _begin(registry, Client(db_config=settings.config), connection, inputs)
    end.channel.send(Prepared(row[0], begun))
    return ExitCode.OK


def _input_of(begin: Begin, workflow: Workflow[Any, Any]) -> Any:
    """Return the input as the type that the workflow's annotation says."""
    try:
        if workflow.types.takes_input:
            document = "null" if begin.document is None else begin.document
            return JSONCodec().decode(document.encode(), workflow.types.input)
    except DecodeError as error:
        raise ConfigError(
            f"--begin {begin.name}: the workflow takes {error.type_name}, and the input does not"
            f" fit: {error.reason}"
        ) from error
    except FlowsError as error:
        raise ConfigError(f"--begin {begin.name}: {error}") from error
    if begin.document not in (None, "null"):
        raise ConfigError(f"--begin {begin.name}: the workflow takes no input")
    return None


def _begin(
    registry: Registry, client: Client, connection: Connection, inputs: list[tuple[Begin, Any]]
) -> tuple[str, ...]:
    keys = []
    with connection.transaction():
        for begin, value in inputs:
            try:
                key = client.begin_tx(connection, registry.get(begin.name), value)
            except FlowsError as error:
                raise ConfigError(f"--begin {begin.name}: {error}") from error
            keys.append(str(key))
    return tuple(keys)
