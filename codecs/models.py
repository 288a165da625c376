"""Pydantic models in payloads; imported only where pydantic already is."""

from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from flows.codecs.losses import find_loss

__all__ = ["dump_model", "is_model", "load_model"]

# Aliases for writing and for reading may differ: field names are written where pydantic can read
# them whatever the aliases are (2.11 and later), else the aliases.
_READS_NAMES = "by_name" in inspect.signature(BaseModel.model_validate_json).parameters
_READING: dict[str, Any] = {"by_alias": True, "by_name": True} if _READS_NAMES else {}
_BYTES_REMEDY = "set ser_json_bytes and val_json_bytes to 'base64' in the model's config"
_sort_key = msgspec.json.Encoder(order="deterministic").encode


def is_model(kind: Any) -> bool:
    """Return whether `kind` is a class of pydantic models."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def dump_model(model: BaseModel) -> Any:
    """Return a model as JSON's builtins, from which `load_model` makes an equal one.

    Raises:
        ValueError: the model holds a NaN or an infinity, which its JSON would turn into null,
            something that pydantic cannot serialize, or something that would not come back, as the
            text of a SecretStr or the fields of a subclass.
    """
    by_alias = not _READS_NAMES
    try:
        written = model.model_dump(mode="json", round_trip=True, by_alias=by_alias)
    except UnicodeDecodeError as error:
        raise ValueError(f"{error}; {_BYTES_REMEDY}") from error
    held = model.model_dump(mode="python", round_trip=True, by_alias=by_alias)
    settled = _settle(written, held)
    loss = find_loss(model, load_model(type(model), settled))
    if loss is not None:
        raise ValueError(loss)
    return settled


def load_model(kind: type[BaseModel], fields: Any) -> BaseModel:
    """Return the model that `dump_model` was given.

    Raises:
        ValueError: the fields do not fit; names the first of them.
    """
    # Through JSON, because only then a strict model takes text for a datetime.
    data = msgspec.json.encode(fields)
    try:
        return kind.model_validate_json(data, **_READING)
    except ValidationError as error:
        raise ValueError(_say(kind, error)) from error


def _say(kind: type[BaseModel], error: ValidationError) -> str:
    """Return a line, where pydantic's own text has several and an address on the web."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    return f"{kind.__qualname__}: {first['msg']}" + (f" - at `{place}`" if place else "")


def _settle(written: Any, held: Any) -> Any:
    """Sort what was a set: pydantic writes it in the order of this process's hashes."""
    if isinstance(held, float) and not math.isfinite(held) and not isinstance(written, str):
        raise ValueError(f"the model holds {held!r}, which JSON cannot spell")
    if isinstance(held, (set, frozenset)) and isinstance(written, list):
        return _settle_set(written, held)
    if not isinstance(written, (dict, list)) or not isinstance(held, (dict, list, tuple)):
        return written
    if len(written) != len(held):  # a serializer of the model's own, which differs by mode
        return written
    if isinstance(written, dict):
        pieces = held.values() if isinstance(held, dict) else held
        pairs = zip(written.items(), pieces, strict=True)
        return {key: _settle(item, piece) for (key, item), piece in pairs}
    return [_settle(item, piece) for item, piece in zip(written, held, strict=True)]


def _settle_set(written: list[Any], held: set[Any] | frozenset[Any]) -> list[Any]:
    # The two iterate in orders of their own, so their items cannot be paired.
    if any(isinstance(item, float) and not math.isfinite(item) for item in held):
        raise ValueError("a set in the model holds a NaN or an infinity, which JSON cannot spell")
    if all(isinstance(item, frozenset) for item in held):
        written = [sorted(item, key=_sort_key) for item in written]
    return sorted(written, key=_sort_key)
