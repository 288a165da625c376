"""The client of a supervisor's control socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from flows.supervisor.control import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ControlError", "ask", "control_option", "find"]

F = TypeVar("F", bound="Callable[..., Any]")

VARIABLE = "FLOWS_CONTROL"
_ANSWER_S = 10.0
_FOLDER = Path(".flows")
_SOCKETS = "supervisor-*.sock"


class ControlError(click.ClickException):
    """There is no supervisor to ask, or it has refused."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it as the other errors are."""
        click.echo(f"flows: error: {self.message}", file=file, err=True)


def control_option(function: F) -> F:
    """Add `--control`; the command gets `control`."""
    return click.option(
        "--control",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The supervisor's socket. By default $FLOWS_CONTROL, then the one in the folder"
        " .flows.",
    )(function)


def find(explicit: Path | None) -> Path:
    """Return the socket of the supervisor that is meant.

    Raises:
        ControlError: there is none, or there are several.
    """
    named = explicit or (Path(value) if (value := os.environ.get(VARIABLE)) else None)
    if named is not None:
        return named
    found = [path for path in sorted(_FOLDER.glob(_SOCKETS)) if _is_live(path)]
    if not found:
        raise ControlError(_why_none(_FOLDER))
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise ControlError(f"several supervisors run here, name one by --control: {names}")
    return found[0]


def ask(
    path: Path, what: dict[str, Any], *, say: Callable[[str], None] | None = None, patient: bool
) -> dict[str, Any]:
    """Ask a supervisor for something, and return its answer.

    Args:
        path: its socket.
        what: the request.
        say: told what happens before the answer.
        patient: wait for the answer as long as it takes.

    Raises:
        ControlError: it is not there, does not answer, or refuses.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(address_of(path))
            connection.sendall(msgspec.json.encode(what) + b"\n")
            if patient:
                connection.settimeout(None)
            with connection.makefile("rb") as lines:
                for line in lines:
                    document = msgspec.json.decode(line, type=dict[str, Any])
                    if "say" not in document:
                        return _answer(document)
                    if say is not None:
                        say(document["say"])
        except TimeoutError as error:
            raise ControlError(f"the supervisor at {path} does not answer") from error
        except PermissionError as error:
            raise ControlError(f"{path} is another user's; run flows as its owner") from error
        except OSError as error:
            raise ControlError(
                f"no supervisor answers at {path}: {error.strerror or error}"
            ) from error
    raise ControlError(f"the supervisor at {path} has ended")


def _answer(document: dict[str, Any]) -> dict[str, Any]:
    if document.get("ok"):
        return document
    raise ControlError(str(document.get("error", "the supervisor has refused")))


def _why_none(folder: Path) -> str:
    """Say why no supervisor was found: one of another user's is not seen, or cannot be asked."""
    # None of them where the folder itself cannot be read.
    sockets = [path for path in folder.glob(_SOCKETS) if not os.access(path, os.W_OK)]
    if os.access(folder, os.F_OK) and not os.access(folder, os.R_OK | os.X_OK):
        sockets = [folder]
    if sockets:
        whose = f"{sockets[0]} is another user's; run flows as its owner"
        return f"a supervisor may run in {Path.cwd()}, but {whose}"
    return f"no supervisor runs in {Path.cwd()}; go to its folder, or name its socket by --control"


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address_of(path))
        except OSError:
            return False
    return True
