"""What every operation of a client stands on: statements out, rows in, and encoding.

An operation is a generator. It yields statements and is sent their rows, and knows nothing of the
connection: `flows.callers` executes it on one, or awaits it on an asynchronous one.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flows import payloads
from flows.awaited import channel_of_ends
from flows.config import check_workflow_name
from flows.errors import ConfigError, DecodeError, PayloadError
from flows.ids import RunID, RunKey, uuid7
from flows.quiet import MOST_SHARDS, quiet_key
from flows.registry import Workflow
from flows.shard import shard_for_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flows.codecs import Codec
    from flows.config import DBConfig
    from flows.payloads import Payload

__all__ = ["Operation", "Operations", "Rows", "Settings", "Statement", "name_of", "route", "text"]

T = TypeVar("T")


class Statement(NamedTuple):
    """A statement to be executed.

    Attributes:
        name: of its file in flows/sql/queries.
        values: its parameters.
        is_read: whether the operation needs its rows; without, it may travel with the next.
        has_arrays: whether parameters are arrays of `flows.sql.arrays`, which a connection that
            was opened earlier does not know.
        may_be_alone: whether its parameter `is_alone` is to say that it is all of its transaction.
    """

    name: str
    values: dict[str, Any]
    is_read: bool = True
    has_arrays: bool = False
    may_be_alone: bool = False


Rows = list[tuple[Any, ...]]
Operation = Generator[Statement, Rows, T]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `flows.client_base.ClientBase` was told, checked; a channel of None notifies nobody."""

    codec: Codec
    config: DBConfig
    channel: str | None
    now: Callable[[], datetime] | None
    max_payload: int


class Operations:
    """How operations encode and ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _encode_input(self, workflow: Any, value: Any) -> Payload:
        """Return an input as it is stored: a handle brings its codec and its annotation."""
        is_handle = isinstance(workflow, Workflow)
        try:
            return _fitting(workflow, value) if is_handle else self._encode(value)
        except PayloadError as error:
            error.of = error.of or f"the input of workflow {name_of(workflow)!r}"
            raise

    def _encode(self, value: Any) -> Payload:
        return payloads.encode(self._settings.codec, value, self._settings.max_payload)

    def _new_key(self, workflow_name: str, chosen_by: str | None = None) -> RunKey:
        """Return the key of a new run; its shard is chosen by its id, or by another text."""
        run_id, shards = uuid7(), self._settings.config.shard_count
        if chosen_by is None and shards > 1:
            chosen_by = str(run_id)
        return RunKey(shard_for_run(workflow_name, chosen_by or "", shards), RunID(run_id))

    def _time(self) -> datetime | None:
        """Return the time that tests have set, None for the database's."""
        now = self._settings.now
        return now() if now else None

    def _quiet_key(self, workflow_name: str) -> int | None:
        """Return the locks that tell whether workers must be told of a begin, None for yes."""
        channel, config = self._settings.channel, self._settings.config
        if channel is None or config.shard_count > MOST_SHARDS:
            return None
        return quiet_key(config.schema, channel, workflow_name)

    def _notify(self, payload: str) -> Operation[None]:
        channel = self._settings.channel
        if channel is not None:
            values = {"channel": channel, "payload": payload}
            yield Statement("notify", values, is_read=False)

    @property
    def channel_of_ends(self) -> str | None:
        """Where the ends of runs are told, None where nobody is notified."""
        channel = self._settings.channel
        return None if channel is None else channel_of_ends(channel)

    def _tell_end(self, key: RunKey) -> Operation[None]:
        """Tell who waits for the end of a run."""
        channel = self.channel_of_ends
        if channel is not None:
            values = {"channel": channel, "payload": str(key)}
            yield Statement("notify", values, is_read=False)

    def _row(self, name: str, values: dict[str, Any]) -> Operation[tuple[Any, ...] | None]:
        """Return the first row of a statement; of one that writes, None where it wrote nothing."""
        # Not by rowcount, which in the caller's pipeline is not known yet.
        rows = yield Statement(name, values)
        return rows[0] if rows else None


def name_of(workflow: Any) -> str:
    """Return the name of a workflow that was given as its handle, object or name.

    Raises:
        ConfigError: it is none, or has no valid name.
    """
    if isinstance(workflow, Workflow):
        return workflow.name
    name = workflow if isinstance(workflow, str) else getattr(workflow, "name", None)
    if name is None:
        raise ConfigError(f"{workflow!r} is no workflow: give its handle, object or name")
    return check_workflow_name(name)


def _fitting(workflow: Workflow[Any, Any], value: Any) -> Payload:
    payload, types = workflow.encode(value), workflow.types
    if types.takes_input and types.input is not Any:
        try:
            payloads.decode(payload, types.input)
        except DecodeError as error:
            takes = f"workflow {workflow.name!r} takes {error.type_name}"
            error.of = f"{takes}, and the input does not fit"
            raise
    return payload


def route(key: RunKey) -> dict[str, Any]:
    """Return the parameters that lead to a run."""
    return {"shard": key.workflow_name_shard, "run_id": key.run_id}


def text(document: bytes | None) -> str | None:
    """Return a JSON document as the text that every connection takes."""
    return None if document is None else document.decode()
