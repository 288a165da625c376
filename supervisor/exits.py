"""What a failure means to whoever started the process: an exit code, and a line of text."""

from __future__ import annotations

import enum
import sys

from flows.errors import (
    ConfigError,
    DatabaseError,
    EmbeddedError,
    LeaseLostError,
    PayloadError,
    SchemaError,
    UnknownWorkflowError,
)

__all__ = ["BOOT_FAILURES", "ExitCode", "exit_code_for", "explain"]


class ExitCode(enum.IntEnum):
    """How a process of flows ends. The supervisor and its children use one numbering.

    Attributes:
        OK: done, or stopped by TERM or INT.
        FAILED: runs failed in this drain; any other command: the answer is no.
        USAGE: options that do not parse.
        CONFIG: the app, an option or a `--begin` cannot work; restarting does not help.
        SCHEMA: the tables are missing or of another version.
        DATABASE: the database cannot be reached, or the embedded one cannot be started.
        BROKEN: processes kept dying until the restart budget was spent.
        LEASE_LOST: a worker's lease ran out; only children, which are replaced at once.
        ORPHANED: the supervisor is gone; only children.
        INTERNAL: an error that nobody foresaw.
        INTERRUPTED: Ctrl-C before there was anything to stop.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    SCHEMA = 4
    DATABASE = 5
    BROKEN = 6
    LEASE_LOST = 7
    ORPHANED = 8
    INTERNAL = 70
    INTERRUPTED = 130


BOOT_FAILURES = frozenset({ExitCode.CONFIG, ExitCode.SCHEMA, ExitCode.DATABASE})
"""What a child may die of before it is ready without having crashed."""

_CODES: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
    ((ConfigError, PayloadError, UnknownWorkflowError), ExitCode.CONFIG),
    ((SchemaError,), ExitCode.SCHEMA),
    ((DatabaseError, EmbeddedError), ExitCode.DATABASE),
    ((LeaseLostError,), ExitCode.LEASE_LOST),
)


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of a process that ends with `error`."""
    for types, code in _CODES:
        if isinstance(error, types):
            return code
    # The driver is looked up, not imported: a process that has not loaded it cannot have raised it.
    driver = sys.modules.get("psycopg")
    if driver is not None and isinstance(error, driver.Error):
        return ExitCode.DATABASE
    return ExitCode.INTERNAL


def explain(error: BaseException) -> str:
    """Return an error as one line, or two where its message has more."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if exit_code_for(error) is ExitCode.INTERNAL:
        lines[:1] = [f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__]
    return "\n".join(lines[:2]) or type(error).__name__
