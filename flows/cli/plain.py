"""Decoded values and stored text as a terminal, or a program that reads JSON, can take them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["one_line", "plain", "printable", "shortened"]

ELLIPSIS = "…"
MAX_DEPTH = 200
"""Writing JSON recurses, and Python's limit of about 1000 calls holds for all of them together."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return a decoded value in the types of JSON: bytes as base64, NaN and infinities as text.

    Raises:
        RecursionError: it is nested deeper than can be written.
    """
    if depth > MAX_DEPTH:
        raise RecursionError(f"it is nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {_key(key): plain(held, depth + 1) for key, held in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item, depth + 1) for item in value]
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case _:
            return str(value)


def one_line(value: Any) -> str:
    """Return a value of JSON's types as one line that can be printed."""
    return printable(json.dumps(value, ensure_ascii=False))


def printable(text: str, *, keep: str = "") -> str:
    """Return text with all that a terminal could take for a command written as escapes.

    Args:
        text: anything that was stored.
        keep: characters to leave as they are besides, as a line feed.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of text; the last one shows where some are missing."""
    return text if len(text) <= length else text[: length - 1] + ELLIPSIS


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key))
