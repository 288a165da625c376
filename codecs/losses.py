"""What a pydantic model loses on its way through JSON, of which pydantic says nothing.

The text of a SecretStr becomes asterisks, a field with `exclude=True` its default; and of a
subclass, where a field declares its base, only the base's fields are written.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["find_loss"]

_Piece: TypeAlias = tuple[str, Any, Any]

# What a field without a type comes back as, by the rule for values without an annotation.
_BUILTINS = frozenset({bool, int, float, str, list, dict})


def find_loss(given: BaseModel, kept: BaseModel) -> str | None:
    """Return what is not the same in the model that came back, None where all is.

    Private attributes are no part of a model's data. Of objects whose class defines no equality,
    or raises in it, nothing can be said.
    """
    found = _find("", given, kept)
    if found is None:
        return None
    path, one, other = found
    return f"{path.removeprefix('.')} is {one!r:.80} and would come back as {other!r:.80}"


def _find(path: str, given: Any, kept: Any) -> _Piece | None:
    pieces = _pieces(given, kept)
    if pieces is not None:
        found = (_find(path + step, one, other) for step, one, other in pieces)
        return next(filter(None, found), None)
    return None if _is_kept(given, kept) else (path, given, kept)


def _pieces(given: Any, kept: Any) -> Iterable[_Piece] | None:
    """Return what two containers of one kind hold, side by side; None where they are no such."""
    if type(given) is not type(kept):
        return None
    if isinstance(given, BaseModel):
        return _fields(given, kept)
    if isinstance(given, dict):
        same_keys = given.keys() == kept.keys()
        return ((f"[{key!r:.80}]", given[key], kept[key]) for key in given) if same_keys else None
    if isinstance(given, (list, tuple)) and len(given) == len(kept):
        pairs = enumerate(zip(given, kept, strict=True))
        return ((f"[{index}]", one, other) for index, (one, other) in pairs)
    return None


def _fields(given: BaseModel, kept: BaseModel) -> Iterator[_Piece]:
    for name in type(given).model_fields:
        yield f".{name}", getattr(given, name, None), getattr(kept, name, None)
    yield ".model_extra", given.model_extra, kept.model_extra


def _is_kept(given: Any, kept: Any) -> bool:
    kind = type(given)
    if kind is not type(kept) and type(kept) in _BUILTINS:
        return True
    if kind is type(kept) and not any("__eq__" in vars(base) for base in kind.__mro__[:-1]):
        return True
    try:
        return bool(given == kept) or _is_equal_after_all(given, kept)
    except Exception:  # noqa: BLE001  a class may raise anything, as an array of numbers does
        return True


def _is_equal_after_all(given: Any, kept: Any) -> bool:
    if isinstance(given, dt.datetime) and isinstance(kept, dt.datetime):
        # Of the hour that the clock repeats, Python calls no two zones' times equal.
        return given.tzinfo is not None and given.timestamp() == kept.timestamp()
    return bool(given != given and kept != kept)  # noqa: PLR0124  NaN
