"""JSON that is given on the command line or on stdin."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from flows.codecs import JSONCodec
from flows.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from flows.registry import Workflow

__all__ = ["check_text", "input_for", "parse_document", "read_document"]

STDIN = "-"
_QUOTING = """\nin a shell it wants quotes around it, as in '{"n": 1}' or '"text"'"""


def read_document(what: str, argument: str | None) -> str | None:
    """Return the JSON that an argument is, or that stdin holds where the argument is `-`.

    Args:
        what: the name of it for errors, as in "the input".
        argument: as given; None where none was.

    Raises:
        ConfigError: it is not JSON; says where.
    """
    if argument is None:
        return None
    text = _read_stdin(what) if argument == STDIN else check_text(what, argument)
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except ValueError as error:
        remedy = "" if argument == STDIN else _QUOTING
        raise ConfigError(f"{what} is not JSON: {error}{remedy}") from error
    return text


def parse_document(document: str | None) -> Any:
    """Return JSON as plain builtins; None where there is none."""
    return None if document is None else json.loads(document)


def input_for(workflow: Workflow[Any, Any], document: str | None) -> Any:
    """Return JSON as the input of a workflow, of the type that its annotation says.

    Raises:
        ConfigError: it does not fit, or the workflow takes no input.
    """
    if workflow.types.takes_input:
        try:
            return JSONCodec().decode((document or "null").encode(), workflow.types.input)
        except DecodeError as error:
            what = f"workflow {workflow.name!r} takes {error.type_name}"
            if document is None:
                raise ConfigError(f"{what}, and no input was given") from error
            raise ConfigError(f"{what}, and the input does not fit: {error.reason}") from error
    if parse_document(document) is not None:
        raise ConfigError(f"workflow {workflow.name!r} takes no input")
    return None


def check_text(what: str, argument: str) -> str:
    """Return an argument if it is text that Postgres can store.

    Raises:
        ConfigError: its bytes are not UTF-8.
    """
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} is not UTF-8 text: {argument[: error.end]!a}") from error
    return argument


def _read_stdin(what: str) -> str:
    if sys.stdin is None:
        raise ConfigError(f"{what} is to be read from stdin, which is closed")
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not UTF-8 text: {error.reason} at {error.start}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
