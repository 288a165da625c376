"""The results of the runs that `--begin` has begun, on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from flows.client import Client
from flows.database import connect
from flows.errors import RunStateError
from flows.ids import RunKey
from flows.supervisor.exits import ExitCode
from flows.supervisor.messages import Notice
from flows.supervisor.tables import print_value

if TYPE_CHECKING:
    from flows.registry import Registry
    from flows.supervisor.child import ChildEnd
    from flows.supervisor.jobs import Report, Settings

__all__ = ["print_outputs"]


def print_outputs(registry: Registry, settings: Settings, job: Report, end: ChildEnd) -> int:
    """Print the outputs of runs to stdout; of a run that has none, tell the supervisor why."""
    client = Client(db_config=settings.config)
    with connect(settings.dsn, "flows report") as connection:
        gap = ""
        for text in job.keys:
            key = RunKey.parse(text)
            try:
                # Decoded to its own type, its fields come in the order they were written in.
                wanted = registry.get(key.workflow_name).types.output
                output = client.get_run_output_tx(connection, key, wanted)
            except RunStateError as error:
                end.channel.send(Notice(str(error)))
            else:
                sys.stdout.write(gap)
                gap = "\n"
                print_value(f"{key.workflow_name} {key.run_id}", _plain(output), sys.stdout)
    return ExitCode.OK


def _plain(output: Any) -> Any:
    return msgspec.to_builtins(output, str_keys=True, enc_hook=_fields)


def _fields(value: Any) -> Any:
    """Return what a class that msgspec does not know holds, as a pydantic model does."""
    return dict(vars(value)) if hasattr(value, "__dict__") else str(value)
