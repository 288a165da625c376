"""Decoders for annotated types: made once per type, with what is to be known about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import inspect

from flows.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Decoders", "Plan"]

_MOST_TYPES = 1024
# Types whose decoded form shows the order in which a dict was stored.
_ORDERED = (
    inspect.DictType,
    inspect.TypedDictType,
    inspect.AnyType,
    inspect.RawType,
    inspect.CustomType,
)


class Plan(NamedTuple):
    """How to decode one type.

    Attributes:
        decode: bytes in, value out; raises whatever it likes.
        shows_order: whether the value holds dicts, so that the order of keys can be seen.
        shows_digits: whether it holds a Decimal, to which the digits of a number matter.
    """

    decode: Callable[[bytes], Any]
    shows_order: bool
    shows_digits: bool


class Decoders:
    """The plans of one codec, by type.

    Two threads that meet a type at the same moment make its plan twice, which does no harm.
    """

    def __init__(self, codec: str, make: Callable[..., Any]) -> None:
        self._codec = codec
        self._make = make
        self._plans: dict[Any, Plan] = {}

    def plan(self, wanted: Any) -> Plan:
        """Return how to decode into the annotation `wanted`.

        Raises:
            DecodeError: nothing can be decoded into it.
        """
        try:
            return self._plans[wanted]
        except KeyError:
            plan = self._new_plan(wanted)
        except TypeError:  # an annotation with an unhashable part, as Annotated[int, {}]
            return self._new_plan(wanted)
        if len(self._plans) >= _MOST_TYPES:  # types made on the fly must not pile up
            self._plans.clear()
        self._plans[wanted] = plan
        return plan

    def failure(self, wanted: Any, error: Exception) -> DecodeError:
        """Return `error` as one that says what was wanted."""
        reason = str(error) or type(error).__name__
        if isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        return DecodeError(self._codec, _type_name(wanted), reason)

    def _new_plan(self, wanted: Any) -> Plan:
        try:
            decoder = self._make(wanted, dec_hook=_build)
            nodes = list(_nodes(inspect.type_info(wanted)))
            _refuse_private_fields(nodes)
        except Exception as error:  # an annotation may be any object, and fail in any way
            raise self.failure(wanted, error) from error
        return Plan(
            decoder.decode,
            shows_order=any(isinstance(node, _ORDERED) for node in nodes),
            shows_digits=any(isinstance(node, inspect.DecimalType) for node in nodes),
        )


def _type_name(wanted: Any) -> str:
    """Return an annotation as it is written in code."""
    if isinstance(wanted, type) and not hasattr(wanted, "__args__"):
        return wanted.__qualname__
    return str(wanted).removeprefix("typing.")


def _build(kind: Any, held: Any) -> Any:
    """Make a `kind`, which msgspec does not know, of the builtins that were stored for it."""
    if "pydantic" in sys.modules:  # without the import no type can be a model
        from flows.codecs.models import is_model, load_model  # noqa: PLC0415

        if is_model(kind):
            return load_model(kind, held)
    if isinstance(kind, type) and isinstance(held, kind):
        return held
    raise TypeError(f"Expected `{_type_name(kind)}`, got `{type(held).__name__}`")


def _nodes(root: inspect.Type) -> Iterator[inspect.Type]:
    """Yield the description of a type and of every type in it, once each."""
    seen: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, inspect.Field):
            todo.append(node.type)
        elif isinstance(node, tuple):
            todo.extend(node)
        elif isinstance(node, inspect.Type) and id(node) not in seen:
            seen.add(id(node))
            yield node
            todo.extend(getattr(node, name) for name in node.__struct_fields__)


def _refuse_private_fields(nodes: list[inspect.Type]) -> None:
    """Refuse attrs classes whose fields msgspec would leave out without a word."""
    for node in nodes:
        kind = getattr(node, "cls", None)
        for field in getattr(kind, "__attrs_attrs__", ()):
            if field.name.startswith("_"):
                name = f"{_type_name(kind)}.{field.name}"
                raise TypeError(f"private attrs fields are not stored: {name}")
