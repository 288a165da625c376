"""The careful way to encode: look at every item, in Python.

The encoders in C are tried first. A value comes here when one of them refused it, or when what it
wrote may hide a loss: then this walk either finds the item that cannot be kept, and says where it
stands, or returns an equal value in plain builtins that the encoder takes.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flows.codecs.unfold import LEAVES, unfold
from flows.errors import EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Domain", "plain"]

# Python converts no longer integers to and from text, unless a process is told to.
_DIGITS = 4300
_TOO_LONG = 10**_DIGITS

_packed = msgspec.msgpack.Encoder().encode
_write_json = msgspec.json.Encoder().encode
_read_json = msgspec.json.Decoder().decode


class Domain(NamedTuple):
    """What one codec can keep.

    Attributes:
        codec: its name, for the errors.
        is_text: JSON, whose keys are text and whose numbers are finite; else MessagePack.
        keeps_nul: whether text may hold NUL, which jsonb refuses.
        integers: the smallest and the largest integer, or None where any length will do.
    """

    codec: str
    is_text: bool
    keeps_nul: bool
    integers: tuple[int, int] | None


def plain(value: Any, domain: Domain) -> Any:
    """Return `value` in builtins: dicts and sets sorted, objects as dicts of their fields.

    Raises:
        EncodeError: something in it cannot be kept; names its path.
        RecursionError: it is nested deeper than this stack allows.
    """
    try:
        return _Walk(domain).visit(value)
    except (EncodeError, RecursionError):
        raise
    except Exception as error:  # a property or a repr() of the value's own may raise anything
        raise EncodeError(domain.codec, "$", f"reading it raised {error!r}") from error


class _Walk:
    """One pass over one value; knows where it is."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._bytes = _write_json if domain.is_text else _packed
        self._path: list[str] = []
        self._open: set[int] = set()
        self._visits: dict[type, Callable[[Any], Any]] = {
            type(None): lambda value: value,
            bool: lambda value: value,
            int: self._visit_int,
            float: self._visit_float,
            str: self._visit_str,
            dict: self._visit_dict,
            list: self._visit_list,
            tuple: self._visit_list,
            set: self._visit_set,
            frozenset: self._visit_set,
        }

    def visit(self, value: Any) -> Any:
        """Return the plain form of one item and of all in it."""
        kind = type(value)
        visit = self._visits.get(kind)
        if visit is not None:
            return visit(value)
        if kind in LEAVES:
            return self._visit_leaf(value)
        if kind is msgspec.msgpack.Ext and not self._domain.is_text:
            return value
        with self._entered(value):
            try:
                simpler = unfold(value)
            except RecursionError:
                raise
            except Exception as error:
                raise self._refusal(str(error)) from error
            return self.visit(simpler)

    def _visit_int(self, value: int) -> int:
        bounds = self._domain.integers
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            raise self._refusal("the integer has more than 64 bits")
        if not -_TOO_LONG < value < _TOO_LONG:
            raise self._refusal(f"the integer has more than {_DIGITS} digits")
        return value

    def _visit_float(self, value: float) -> float:
        if self._domain.is_text and not math.isfinite(value):
            raise self._refusal(f"JSON cannot spell {value!r}")
        return value + 0.0  # -0.0 becomes 0.0: they are equal, so their bytes must be

    def _visit_str(self, value: str) -> str:
        if not self._domain.keeps_nul and "\0" in value:
            raise self._refusal("jsonb cannot keep a NUL character in text")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = f"U+{ord(value[error.start]):04X} at index {error.start}"
            raise self._refusal(f"the text holds a lone surrogate, {found}") from None
        return value

    def _visit_leaf(self, value: Any) -> Any:
        try:
            return msgspec.to_builtins(value) if self._domain.is_text else value
        except Exception as error:
            raise self._refusal(str(error)) from error

    def _visit_list(self, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        with self._entered(value):
            return [self._visit_at(f"[{index}]", item) for index, item in enumerate(value)]

    def _visit_set(self, value: set[Any] | frozenset[Any]) -> list[Any]:
        with self._entered(value):
            items = [self._visit_at("[...]", item) for item in value]
        try:
            return sorted(items)  # total now: a set in the set has become a sorted list
        except TypeError:
            return sorted(items, key=self._bytes)

    def _visit_dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        written: dict[bytes, tuple[Any, Any]] = {}
        with self._entered(value):
            for key, item in value.items():
                if item is msgspec.UNSET:
                    continue
                step = _step(key)
                plain_key = self._visit_at(step, key, self._key)
                mark = self._bytes(plain_key)
                if mark in written:
                    reason = f"two keys of the dict are written the same, as {plain_key!r}"
                    raise self._refusal(reason)
                written[mark] = plain_key, self._visit_at(step, item)
        try:
            return dict(sorted(written.values(), key=itemgetter(0)))
        except TypeError:
            return dict(written[mark] for mark in sorted(written))

    def _key(self, key: Any) -> Any:
        if type(key) is str:
            return self._visit_str(key)
        form = self.visit(key)
        if self._domain.is_text:
            return self._key_text(form, key)
        form = _hashable(form)
        if isinstance(form, dict):
            raise self._refusal(f"a {type(key).__qualname__} cannot be read back as a key")
        return form

    def _key_text(self, form: Any, key: Any) -> str:
        if isinstance(form, str):
            return form
        if isinstance(form, (int, float)) and not isinstance(form, bool):
            (text,) = _read_json(_write_json({form: None}))
            return str(text)
        raise self._refusal(f"JSON's keys are text, a {type(key).__qualname__} would not come back")

    def _visit_at(self, step: str, item: Any, visit: Callable[[Any], Any] | None = None) -> Any:
        self._path.append(step)
        form = (visit or self.visit)(item)
        self._path.pop()
        return form

    @contextmanager
    def _entered(self, value: Any) -> Iterator[None]:
        """Refuse a value inside itself, on which the walk would never end."""
        if id(value) in self._open:
            raise self._refusal("the value contains itself")
        self._open.add(id(value))
        yield
        self._open.discard(id(value))

    def _refusal(self, reason: str) -> EncodeError:
        return EncodeError(self._domain.codec, "$" + "".join(self._path), reason)


def _step(key: Any) -> str:
    if isinstance(key, str):
        text = str.__str__(key)  # a subclass may answer anything
        return f".{text}" if text.isidentifier() else f"[{text!r:.80}]"
    return f"[{key!r:.80}]"


def _hashable(form: Any) -> Any:
    return tuple(_hashable(item) for item in form) if isinstance(form, list) else form
