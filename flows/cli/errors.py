"""Errors as the person at the terminal sees them: what and the remedy, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options import DEBUG_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["forget_stdout", "run_rendered"]

_UNWRITABLE = {errno.ENOSPC, errno.EIO}
"""What writing to a full disk and to a closed terminal fails with."""

_INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, whose module takes a while to import."""


def run_rendered(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command, print its error if it has one, and return the exit code."""
    # Kept here: the context that knows of --debug is gone when the error arrives.
    settings: dict[str, Any] = {}
    try:
        result = command.main(arguments, standalone_mode=False, obj=settings)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone, as `head` does.
        forget_stdout()
        return 0
    except Exception as error:  # noqa: BLE001  the last place where an error can be told
        return _render(error, debug=bool(settings.get(DEBUG_KEY)))
    return result if isinstance(result, int) else 0


def _render(error: Exception, *, debug: bool) -> int:
    if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
        forget_stdout()
        click.echo(f"flows: error: the output cannot be written: {error.strerror}", err=True)
        return 1
    # What is not needed to say what commands there are.
    from flows.supervisor.exits import ExitCode, exit_code_for, explain  # noqa: PLC0415

    code = exit_code_for(error)
    if debug:
        import traceback  # noqa: PLC0415

        traceback.print_exception(error)
    click.echo(f"flows: error: {explain(error)}", err=True)
    if code is ExitCode.INTERNAL and not debug:
        click.echo("flows: this was not foreseen; --debug shows where it happened", err=True)
    return code


def forget_stdout() -> None:
    """Send what stands in the buffer nowhere: it would fail once more when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
