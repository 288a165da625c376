"""What is recorded of an exception."""

from __future__ import annotations

import traceback

__all__ = ["MAX_ERROR_CHARACTERS", "describe", "first_line", "stack_of", "storable"]

MAX_ERROR_CHARACTERS = 16_000
"""Longer texts keep their head, which names the error, and their tail, which names the place."""

MAX_LOGGED = 200
"""Characters of an error that are logged; `error_text` has them all."""


def describe(error: BaseException) -> str:
    """Return type, message and traceback of an error as text that Postgres can store."""
    return storable(f"{_headline(error)}\n\n{stack_of(error)}")


def stack_of(error: BaseException) -> str:
    """Return the traceback of an error as text."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  an error whose str() raises is still recorded
        return "".join(traceback.format_tb(error.__traceback__))


def first_line(error: BaseException | str) -> str:
    """Return what a log may tell of an error: its first line, and 200 characters at most.

    What follows in an error of the server, as its DETAIL, may quote values of rows.
    """
    return str(error).partition("\n")[0][:MAX_LOGGED]


def storable(text: str) -> str:
    """Return `text` without what a text column refuses, and within the bound."""
    text = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= MAX_ERROR_CHARACTERS:
        return text
    half = MAX_ERROR_CHARACTERS // 2
    cut = len(text) - 2 * half
    return f"{text[:half]}\n… {cut} characters left out …\n{text[-half:]}"


def _headline(error: BaseException) -> str:
    name = type(error).__qualname__
    module = getattr(type(error), "__module__", None)
    if isinstance(module, str) and module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    try:
        message = str(error)
    except BaseException:  # noqa: BLE001  likewise
        message = "(its message could not be read)"
    return f"{name}: {message}" if message else name
