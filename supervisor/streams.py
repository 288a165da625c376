"""What a child prints and logs: redirected to a pipe that the supervisor reads.

Python's own streams never wait longer than a moment for the supervisor: where it has stopped
reading, lines are dropped, and counted. Programs that a step starts inherit ordinary
descriptors of the same pipe: what they do with one that is not ready is not ours to decide.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import select
import sys
from typing import Any, Literal

import msgspec

from flows import clock, run_logging

__all__ = ["RECORD", "BoundedStream", "LogStyle", "redirect"]

RECORD = "\x1e"
"""What a line begins with that is a log record as JSON."""

_PATIENCE_S = 1.0
"""How long a write waits for a supervisor that does not read."""

_PIPE_BYTES = 1 << 20

_LONGEST_RECORD = 60_000
"""Characters of a record as JSON, less than of a line that the supervisor reads in one piece."""

_CHUNK_BYTES = 4096
"""What a pipe takes at once when it is ready at all."""


class LogStyle(msgspec.Struct, frozen=True):
    """How output is shown.

    Attributes:
        format: lines with the name of their process before them, or a JSON object each.
        level: of the root logger where the application sets up no logging; None leaves it alone.
    """

    format: Literal["text", "json"] = "text"
    level: str | None = None


class BoundedStream(io.RawIOBase):
    """A descriptor that is written to for a bounded time."""

    def __init__(self, fd: int) -> None:
        """Prepare to write to `fd`, which may be set to another one later."""
        self.fd = fd
        self._dropped = 0

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.fd

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write all of it, or drop what is left after a moment; return its length."""
        view = memoryview(data).cast("B")
        if self._dropped:
            if not self._is_ready(0.0):
                self._dropped += 1
                return len(view)
            note = f"({self._dropped} writes were dropped here: nobody was reading)\n"
            self._dropped = 0
            os.write(self.fd, note.encode())
        deadline_s = clock.monotonic() + _PATIENCE_S
        at = 0
        while at < len(view):
            if not self._is_ready(deadline_s - clock.monotonic()):
                self._dropped = 1
                break
            at += os.write(self.fd, view[at : at + _CHUNK_BYTES])
        return len(view)

    def _is_ready(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))


_streams: dict[str, BoundedStream] = {}


def redirect(fd: int, style: LogStyle, stdout_fd: int | None = None) -> None:
    """Send what this process writes to a pipe, in place of where it went before.

    Handlers that the application has made in the template write to the streams of the template,
    which are the same objects in each of its children.

    Args:
        fd: the pipe; closed.
        style: how records are written.
        stdout_fd: where stdout goes instead, by ordinary writes: results are not dropped.
    """
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # A user has only so much in pipes: then this one stays as small as it is.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if name == "stdout" and stdout_fd is not None:
            os.dup2(stdout_fd, number)
            sys.stdout = open(number, "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115  for the life of the process
            continue
        os.dup2(fd, number)
        if name not in _streams:
            _streams[name] = BoundedStream(number)
            setattr(sys, name, _text(_streams[name]))
    if fd > 2:
        os.close(fd)
    run_logging.install()
    _set_up_logging(style)


def _text(raw: BoundedStream) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw, 1 << 16),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


class _Handler(logging.StreamHandler[Any]):
    """The handler that is there where the application has made none."""


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether nobody else says what psycopg does.

    A statement in a pipeline raises that the connection is lost. On the way out psycopg ends the
    pipeline, which cannot work either, and warns that it ignores this second error.
    """
    if record.msg != "error ignored terminating %r: %s" or not isinstance(record.args, tuple):
        return True
    return not repr(record.args[0]).startswith("<psycopg.Pipeline [BAD]")


def _set_up_logging(style: LogStyle) -> None:
    # The same function again is no harm.
    logging.getLogger("psycopg").addFilter(_is_news)
    root = logging.getLogger()
    if any(not isinstance(handler, _Handler) for handler in root.handlers):
        return
    if not root.handlers:
        handler = _Handler(sys.stderr)
        handler.setFormatter(_JSONFormatter() if style.format == "json" else _TextFormatter())
        root.addHandler(handler)
    if style.level is not None:
        root.setLevel(style.level)


class _TextFormatter(logging.Formatter):
    """As in `WARNING shop.orders: out of bolts [order 0190…, attempt 2, step pack/v1]`."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s%(where)s")

    def format(self, record: logging.LogRecord) -> str:
        where = ""
        if getattr(record, "run_id", None) is not None:
            where = f" [{record.workflow} {record.run_id}, attempt {record.attempt}"  # type: ignore[attr-defined]
            step = getattr(record, "step", None)
            where += f", step {step}]" if step else "]"
        record.where = where
        return super().format(record)


_USUAL = frozenset(
    {
        *vars(logging.LogRecord("", 0, "", 0, "", None, None)),
        *run_logging.FIELDS,
        *run_logging.TRACE_FIELDS,
        "message",
        "asctime",
        "taskName",
        "time",
    }
)
"""What records have anyhow; the rest was given as `extra`. Time and process the supervisor adds."""


class _JSONFormatter(logging.Formatter):
    """One line, marked as a record."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in (*run_logging.FIELDS, *run_logging.TRACE_FIELDS):
            value = getattr(record, name, None)
            if value is not None:
                fields[name] = value
        for name, value in vars(record).items():
            if name not in _USUAL:
                fields.setdefault(name, value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return RECORD + _encode(fields)


def _encode(fields: dict[str, object]) -> str:
    try:
        text = msgspec.json.encode(fields, enc_hook=str).decode()
    except Exception:  # noqa: BLE001  keys that are no texts, half characters, a failing __str__
        fields = {name: _shown(value) for name, value in fields.items()}
        text = msgspec.json.encode(fields).decode()
    if len(text) <= _LONGEST_RECORD:
        return text
    # A longer line would be broken in two, neither of them JSON.
    shown = {name: _shown(value) for name, value in fields.items()}
    most = _LONGEST_RECORD // (6 * len(shown))
    return msgspec.json.encode({name: value[:most] for name, value in shown.items()}).decode()


def _shown(value: object) -> str:
    try:
        return str(value).encode(errors="backslashreplace").decode()
    except Exception as error:  # noqa: BLE001  whatever a __str__ raises
        return f"<{type(value).__name__} that raises {type(error).__name__} when shown>"
