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
from flows.quiet import quiet_key
from flows.registry import Workflow
from flows.shard import shard_for_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flows.codecs import Codec
    from flows.config import DBConfig
    from flows.payloads import Payload

__all__ = ["Operation", "Operations", "Rows", "Settings", "Statement", "naming", "route", "text"]

T = TypeVar("T")


class Statement(NamedTuple):
    """A statement to be executed.

    Attributes:
        name: of its file in flows/sql/queries.
        values: its parameters.
        is_read: whether the operation needs its rows; without, it may travel with the next.
    """

    name: str
    values: dict[str, Any]
    is_read: bool = True


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

    def _encoder(self, workflow: Any) -> tuple[str, Callable[[Any], Payload]]:
        """Return a workflow's name and how its inputs are encoded."""
        if isinstance(workflow, Workflow):
            types = workflow.types

            def encode(value: Any) -> Payload:
                payload = workflow.encode(value)
                if types.takes_input and types.input is not Any:
                    _check_fit(workflow.name, payload, types.input)
                return payload

            return workflow.name, naming(f"the input of workflow {workflow.name!r}", encode)
        name = workflow if isinstance(workflow, str) else getattr(workflow, "name", None)
        if name is None:
            raise ConfigError(f"{workflow!r} is no workflow: give its handle, object or name")
        return name, naming(f"the input of workflow {check_workflow_name(name)!r}", self._encode)

    def _encode(self, value: Any) -> Payload:
        return payloads.encode(self._settings.codec, value, self._settings.max_payload)

    def _new_key(self, workflow_name: str, chosen_by: str | None = None) -> RunKey:
        """Return the key of a new run; its shard is chosen by its id, or by another text."""
        run_id = uuid7()
        chosen_by = chosen_by or str(run_id)
        shard = shard_for_run(workflow_name, chosen_by, self._settings.config.shard_count)
        return RunKey(shard, RunID(run_id))

    def _time(self) -> datetime | None:
        """Return the time that tests have set, None for the database's."""
        now = self._settings.now
        return now() if now else None

    def _quiet_key(self, workflow_name: str) -> int | None:
        """Return the lock that tells whether a worker wants to be told of begins, None for yes."""
        channel = self._settings.channel
        if channel is None:
            return None
        return quiet_key(self._settings.config.schema, channel, workflow_name)

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


def naming(of: str, encode: Callable[[Any], Payload]) -> Callable[[Any], Payload]:
    """Return `encode`, with errors that say of which value they are."""

    def encode_named(value: Any) -> Payload:
        try:
            return encode(value)
        except PayloadError as error:
            error.of = error.of or of
            raise

    return encode_named


def _check_fit(workflow_name: str, payload: Payload, kind: Any) -> None:
    try:
        payloads.decode(payload, kind)
    except DecodeError as error:
        error.of = f"workflow {workflow_name!r} takes {error.type_name}, and the input does not fit"
        raise


def route(key: RunKey) -> dict[str, Any]:
    """Return the parameters that lead to a run."""
    return {"shard": key.workflow_name_shard, "run_id": key.run_id}


def text(document: bytes | None) -> str | None:
    """Return a JSON document as the text that every connection takes."""
    return None if document is None else document.decode()
