"""One level of a value in simpler terms, for the encoders that do not know its type.

An object becomes a dict of its fields, a subclass of a builtin becomes the builtin. The pieces
are left as they are: whoever asked goes on with them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import sys
import uuid
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LEAVES", "unfold"]

# What msgspec writes by itself as one item. Subclasses are not meant: they may hold more.
LEAVES = frozenset(
    {
        bytes,
        bytearray,
        memoryview,
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
        decimal.Decimal,
        uuid.UUID,
    }
)

# `str(text)` would ask the subclass, which may answer anything.
_PLAIN_BUILTINS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (tuple, tuple),
    (list, list),
    (dict, dict),
    (set, frozenset),
    (frozenset, frozenset),
)

_unfolders: dict[type, Callable[[Any], Any]] = {}
_MOST_TYPES = 4096


def unfold(value: Any) -> Any:
    """Return `value` one level simpler.

    Raises:
        TypeError: payloads cannot hold values of this class.
    """
    kind = type(value)
    unfolder = _unfolders.get(kind)
    if unfolder is None:
        unfolder = _find_unfolder(kind)
        if len(_unfolders) >= _MOST_TYPES:  # types made on the fly must not pile up
            _unfolders.clear()
        _unfolders[kind] = unfolder
    return unfolder(value)


def _find_unfolder(kind: type) -> Callable[[Any], Any]:
    if issubclass(kind, enum.Enum):
        return attrgetter("value")
    fields = _field_reader(kind)
    if fields is not None:
        return fields
    for builtin, plain in _PLAIN_BUILTINS:
        if issubclass(kind, builtin):
            return plain
    return _refuse


def _field_reader(kind: type) -> Callable[[Any], Any] | None:
    if issubclass(kind, msgspec.Struct):
        return _struct_reader(kind)
    if dataclasses.is_dataclass(kind):
        return _attribute_reader(tuple(field.name for field in dataclasses.fields(kind)))
    if hasattr(kind, "__attrs_attrs__"):
        return _attribute_reader(tuple(field.name for field in kind.__attrs_attrs__))
    if "pydantic" in sys.modules:  # without the import no value can be a model
        from flows.codecs.models import dump_model, is_model  # noqa: PLC0415

        if is_model(kind):
            return dump_model
    return None


def _attribute_reader(names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    return read


def _struct_reader(kind: type[msgspec.Struct]) -> Callable[[Any], Any]:
    config = kind.__struct_config__
    names, written = kind.__struct_fields__, kind.__struct_encode_fields__
    if config.tag is None and not config.array_like and names == written:
        return msgspec.structs.asdict
    tag = () if config.tag is None else (config.tag,)
    if config.array_like:
        return lambda value: (*tag, *msgspec.structs.astuple(value))

    def read(value: Any) -> dict[str, Any]:
        fields: dict[str, Any] = dict(zip(written, msgspec.structs.astuple(value), strict=True))
        if tag:
            fields[config.tag_field or "type"] = config.tag
        return fields

    return read


def _refuse(value: Any) -> Any:
    kind = type(value)
    raise TypeError(f"payloads cannot hold a {kind.__module__}.{kind.__qualname__}")
