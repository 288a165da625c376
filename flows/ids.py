"""Names of runs: `RunID`, `RunKey`, and the UUIDs behind them."""

from __future__ import annotations

import os
import re
import uuid
from typing import NamedTuple, NewType

from flows.clock import unix_ms
from flows.errors import ConfigError

__all__ = ["RunID", "RunKey", "uuid7"]

RunID = NewType("RunID", uuid.UUID)

_RUN_KEY = re.compile(
    r"(?P<shard>(?P<name>.+)_[0-9]+):(?P<run_id>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.IGNORECASE | re.DOTALL,
)


def uuid7() -> uuid.UUID:
    """Return a new UUID of version 7: 48 bits of milliseconds, 74 random bits (RFC 9562)."""
    random = int.from_bytes(os.urandom(10))
    value = (unix_ms() & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


class RunKey(NamedTuple):
    """What identifies a run: every read and write is routed by both parts.

    Its text form is `<workflow_name_shard>:<run_id>`; `RunKey.parse` reads it back.

    Attributes:
        workflow_name_shard: the shard, `<workflow name>_<k>`.
        run_id: the id within it.
    """

    workflow_name_shard: str
    run_id: RunID

    def __str__(self) -> str:
        return f"{self.workflow_name_shard}:{self.run_id}"

    @classmethod
    def parse(cls, text: str) -> RunKey:
        """Read a key back from its text form.

        Raises:
            ConfigError: the text is not `<workflow>_<shard>:<uuid>`.
        """
        match = _RUN_KEY.fullmatch(text)
        # Other names have no run, and some of them cannot even be asked for.
        if match is None or not match["name"].isprintable():
            raise ConfigError(f"{text!r} is not a run key: expected <workflow>_<shard>:<run id>")
        return cls(match["shard"], RunID(uuid.UUID(match["run_id"])))

    @property
    def workflow_name(self) -> str:
        """The name of the workflow, which the shard carries."""
        return self.workflow_name_shard.rpartition("_")[0]
