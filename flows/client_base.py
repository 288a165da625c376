"""What every client is made of: its settings, and the operations that they shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.codecs import JSONCodec
from flows.config import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NOTIFY_CHANNEL,
    DBConfig,
    check_identifier,
    check_max_payload,
)
from flows.operations import Settings
from flows.run_operations import RunOperations
from flows.schedule_operations import ScheduleOperations

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from flows.codecs import Codec

__all__ = ["ClientBase", "ClientOperations"]


_OF_CONNECTED = {
    "begin": "begin_tx",
    "begin_many": "begin_many_tx",
    "publish_event": "publish_event_tx",
    "status": "get_run_status_tx",
    "output": "get_run_output_tx",
    "cancel": "cancel_run_tx",
    **dict.fromkeys(("wait", "transaction", "close")),
}
"""What only a client with connections of its own has, and what does the same in a transaction."""


class ClientOperations(RunOperations, ScheduleOperations):
    """Every operation of a client."""


class ClientBase:
    """Settings of a client."""

    def __init__(
        self,
        *,
        codec: Codec | None = None,
        db_config: DBConfig | None = None,
        notify_channel: str | None = None,
        disable_notify: bool = False,
        now: Callable[[], datetime] | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
    ) -> None:
        """Describe a client.

        Args:
            codec: for events and for workflows given by name, `JSONCodec()` by default.
            db_config: where the tables live.
            notify_channel: another channel than `flows_run_wakeup`.
            disable_notify: do not notify workers; they find runs by polling.
            now: tells the time runs are begun at, for tests; by default the database does.
            max_payload: bytes that an event's payload, or the input of a workflow given by name,
                may take, encoded; a handle brings its workflow's own.

        Raises:
            ConfigError: the channel is not a valid name, or `max_payload` out of range.
        """
        channel = check_identifier("notify_channel", notify_channel or DEFAULT_NOTIFY_CHANNEL)
        self._config = db_config or DBConfig()
        self._operations = ClientOperations(
            Settings(
                codec or JSONCodec(),
                self._config,
                None if disable_notify else channel,
                now,
                check_max_payload("a client", max_payload),
            )
        )

    if not TYPE_CHECKING:  # where it would hide from type checkers what is misspelt

        def __getattr__(self, name: str) -> Any:
            """Say what to use, of what only a client with connections of its own has."""
            mine = type(self).__name__
            told = f"{mine!r} object has no attribute {name!r}"
            if name in _OF_CONNECTED:
                in_tx = _OF_CONNECTED[name]
                instead = f"use {in_tx}(tx, …), in a workflow with wf.tx, or" if in_tx else "use"
                told = f"{told}: it has no connection of its own; {instead} {mine}.connect(dsn)"
            raise AttributeError(told, name=name, obj=self)
