"""Results on stdout, and commands whose answer is no."""

from __future__ import annotations

import sys
import traceback
from typing import IO, Any

import click

from flows.cli.errors import forget_stdout
from flows.cli.options import is_debug
from flows.supervisor.exits import ExitCode

__all__ = ["Refusal", "as_json_text", "write"]


class Refusal(click.ClickException):
    """The command cannot do what was asked although nothing is broken: exit code 1."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Asked now: when the error is shown the context that knows has gone.
        self._shows_traceback = is_debug()

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message as every other error of the command line."""
        if self._shows_traceback:
            traceback.print_exception(self, file=file)
        click.echo(f"flows: error: {self.message}", file=file, err=file is None)


def write(text: str) -> None:
    """Write to stdout, all of it; a reader that has gone, as `head` has, is no error.

    Raises:
        Refusal: it cannot be written.
    """
    if sys.stdout is None:
        raise Refusal("the output cannot be written: stdout is closed")
    encoding = sys.stdout.encoding
    try:
        # Not every terminal knows every character; what it does not know is no reason to stop.
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
    except OSError as error:
        forget_stdout()
        raise Refusal(f"the output cannot be written: {error.strerror}") from error


def as_json_text(value: Any) -> str:
    """Return what a command prints with `--json`, of a Struct."""
    import json  # noqa: PLC0415  only where it is asked for

    import msgspec  # noqa: PLC0415

    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2) + "\n"
