"""Where the tables live, and the checks of what is configured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from flows.errors import ConfigError

__all__ = [
    "DEFAULT_MAX_PAYLOAD",
    "DEFAULT_NOTIFY_CHANNEL",
    "DEFAULT_SCHEMA",
    "DEFAULT_TIMEOUT_GRACE",
    "LARGEST_PAYLOAD",
    "SCHEDULE_REFRESH",
    "DBConfig",
    "check_identifier",
    "check_max_payload",
    "check_workflow_name",
    "why_no_key",
]

DEFAULT_SCHEMA = "flows"
DEFAULT_NOTIFY_CHANNEL = "flows_run_wakeup"

DEFAULT_TIMEOUT_GRACE = timedelta(seconds=5)
"""How long user code may take to end once its time is up."""

SCHEDULE_REFRESH = "schedule_refresh"
"""The notification that says that a schedule was changed."""

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL cuts longer identifiers silently (NAMEDATALEN)."""

MAX_WORKFLOW_NAME_BYTES = 1000
"""A notify payload is a shard name and a run id, and PostgreSQL limits payloads to 8,000 bytes;
the bound is lower because the shard name is part of every index entry (2,704 bytes at most)."""

MAX_KEY_BYTES = 1000
"""Keys of steps, waits and random values and names of events stand in index entries beside it."""

MAX_SHARD_COUNT = 4096

DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024
"""Bytes of one encoded payload. jsonb takes six times the text of an array of digits, and refuses
more than 256 MiB: so much JSON it keeps whatever is in it."""

LARGEST_PAYLOAD = 256 * 1024 * 1024 - 1
"""What jsonb can hold at most. Input and output of a step are sent together, and a message of the
protocol has 1 GiB at most."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class DBConfig:
    """Where the tables live.

    Attributes:
        schema: the Postgres schema; letters, digits and underscores, at most 63 characters.
        shard_count: over how many shards the runs of each workflow are spread, at least 1. Every
            client and worker of one database must use the same number. It may grow; workers
            refuse to start with fewer where that leaves out unfinished runs.

    Raises:
        ConfigError: either of them cannot work.
    """

    schema: str = DEFAULT_SCHEMA
    shard_count: int = 1

    def __post_init__(self) -> None:
        check_identifier("schema", self.schema)
        if self.schema.lower().startswith("pg_"):
            raise ConfigError(f"schema {self.schema!r}: names starting with pg_ are PostgreSQL's")
        count = self.shard_count
        if isinstance(count, bool) or not isinstance(count, int):
            raise ConfigError(f"shard_count must be a whole number, not {count!r}")
        if not 1 <= count <= MAX_SHARD_COUNT:
            raise ConfigError(f"shard_count must be from 1 to {MAX_SHARD_COUNT}, not {count}")


def check_identifier(what: str, name: object) -> str:
    """Return `name` if it can be a Postgres identifier as it stands.

    Raises:
        ConfigError: it is not text, or holds anything but letters, digits and underscores.
    """
    if not isinstance(name, str) or not _IDENTIFIER.match(name):
        raise ConfigError(
            f"{what} {name!r} is not a valid identifier:"
            " letters, digits and underscores, not starting with a digit"
        )
    if len(name) > MAX_IDENTIFIER_BYTES:
        raise ConfigError(f"{what} {name!r} is longer than {MAX_IDENTIFIER_BYTES} characters")
    return name


def check_max_payload(of: str, size: object) -> int:
    """Return `size` if payloads can be limited to so many bytes.

    Args:
        of: whose limit it is, as `a client` or `workflow 'render'`.
        size: the limit.

    Raises:
        ConfigError: it is no whole number, or out of range.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(f"{of}: max_payload must be a whole number of bytes, not {size!r}")
    if not 1 <= size <= LARGEST_PAYLOAD:
        raise ConfigError(f"{of}: max_payload must be from 1 to {LARGEST_PAYLOAD:,}, not {size:,}")
    return size


def check_workflow_name(name: object) -> str:
    """Return `name`, as plain text, if a workflow can have it.

    Raises:
        ConfigError: it is not text, empty, too long, or holds a control character.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a workflow's name must be text, not {name!r}")
    # A member of an enumeration of texts is formatted as its own name, and shards would be too.
    return _check_workflow_name(str.__str__(name))


@lru_cache(maxsize=1024)
def _check_workflow_name(name: str) -> str:
    # Remembered, because each begin asks.
    if not name.strip():
        raise ConfigError("a workflow's name must not be empty")
    if not name.isprintable():
        raise ConfigError(f"workflow name {name!r} holds a character that cannot be printed")
    if len(name.encode()) > MAX_WORKFLOW_NAME_BYTES:
        raise ConfigError(
            f"workflow name {name[:40]!r}… is longer than {MAX_WORKFLOW_NAME_BYTES} bytes"
        )
    return name


def why_no_key(name: object) -> str | None:
    """Return why `name` cannot be a key or the name of an event, None if it can."""
    if not isinstance(name, str) or not name:
        return f"must be non-empty text, not {name!r}"
    if "\0" in name:
        return f"{name!r} holds a NUL, which Postgres cannot store"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"{name!r} holds half a surrogate pair, which is no character"
    if size > MAX_KEY_BYTES:
        return f"{name[:40]!r}… is longer than {MAX_KEY_BYTES} bytes"
    return None
