"""Canonical JSON that survives jsonb.

jsonb is not text: it forgets the spelling of numbers and the order of keys, and refuses what it
cannot hold. So the same value is spelled in the one way that comes back unchanged:

* keys sorted, no spaces; decoding sorts them again, as jsonb orders them by length;
* 1e16 as 10000000000000000.0, or it would come back an integer;
* -0.0 as 0.0, as numeric has no sign of zero;
* NaN, infinities, lone surrogates, and NUL where storage is jsonb, are refused.

Encoders in C write first. What they wrote is then searched for the marks of a possible loss, which
costs a fraction of the writing; only a marked value is walked in Python.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from flows.codecs.base import STORAGES
from flows.codecs.checked import CheckedCodec
from flows.codecs.unfold import LEAVES, unfold
from flows.codecs.walk import Domain
from flows.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.codecs.base import Storage
    from flows.codecs.decoding import Plan

__all__ = ["TextCodec", "hides_sets", "write_canonical"]

write_canonical = msgspec.json.Encoder(order="sorted", enc_hook=unfold).encode
_read = msgspec.json.Decoder().decode
_read_digits = msgspec.json.Decoder(float_hook=Decimal).decode
_write_digits = msgspec.json.Encoder(order="sorted", decimal_format="number").encode
_pack = msgspec.msgpack.Encoder(enc_hook=unfold).encode

_HARMLESS = frozenset({type(None), bool, int})
_find_packed_non_finite = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]").search
# Both begin with a literal, which makes the search fast, and end where a number ends, so that
# text seldom matches: hexadecimal digests are full of e16.
_find_large = re.compile(rb"e\+?[1-9][0-9]{1,2}(?:[,\]}]|\Z)").search
_find_minus_zero = re.compile(rb"-0\.0(?:[,\]}]|\Z)").search
_respell_in = re.compile(
    rb'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?e\+?[0-9]+|-0\.0(?![0-9e])', re.DOTALL
).sub


class TextCodec(CheckedCodec):
    """Values as JSON: what the JSON codecs share."""

    def __init__(
        self,
        name: str,
        storage: Storage,
        write: Callable[[Any], bytes],
        integers: tuple[int, int] | None = None,
    ) -> None:
        if storage not in STORAGES:
            raise ConfigError(f"storage must be 'jsonb' or 'bytea', not {storage!r}")
        self._refuses_nul = storage == "jsonb"
        self._write = write
        domain = Domain(name, True, not self._refuses_nul, integers)
        super().__init__(domain, storage, msgspec.json.Decoder)

    def _encode(self, value: Any) -> bytes:
        try:
            data = self._write(value)
        except Exception:  # noqa: BLE001  whatever it was, the walk finds it and says where
            data = self._encode_plain(value)
        kind = type(value)
        if kind in _HARMLESS:
            return data
        holds_nul = self._refuses_nul and b"\\u0000" in data
        if kind is str and not holds_nul:
            return data
        if (
            holds_nul
            or (b"null" in data and _hides_non_finite(value))
            or (b"],[" in data and hides_sets(value))
        ):
            data = self._encode_plain(value)
        if (b"-0.0" in data and _find_minus_zero(data)) or _find_large(data):
            data = _respell_in(_respell, data)
        return data

    def _write_plain(self, form: Any) -> bytes:
        return self._write(form)

    def _read(self, plan: Plan, data: bytes) -> Any:
        # The spaces are jsonb's: what encode() wrote is sorted already.
        if plan.shows_order and b'": ' in data:
            data = _sort_digits(data) if plan.shows_digits else _sort(data)
        return plan.decode(data)


def hides_sets(value: Any) -> bool:
    """Return whether `value` may hold a set of sets.

    Between sets `<` means subset: an encoder that sorts them by it leaves them in the order of
    their hashes, which differs from process to process.
    """
    try:
        orjson.dumps(value, default=_reveal, option=orjson.OPT_NON_STR_KEYS)
    except Exception as error:  # noqa: BLE001  _reveal's, or an integer too long for orjson
        # Nor does orjson look deeper than 254 levels; a set of sets down there goes unseen.
        return "recursion" not in str(error).lower()
    return False


def _reveal(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        if any(isinstance(item, (frozenset, tuple)) for item in value):
            raise TypeError("a set of sets, perhaps")
        return None
    return None if type(value) in LEAVES else unfold(value)


def _hides_non_finite(value: Any) -> bool:
    """Return whether a null in the JSON of `value` may have been a NaN or an infinity."""
    try:
        packed = _pack(value)
    except Exception:  # noqa: BLE001  an integer of more than 64 bits, for one: look closer
        return True
    return _find_packed_non_finite(packed) is not None


def _sort(data: bytes) -> bytes:
    return write_canonical(_read(data))


def _sort_digits(data: bytes) -> bytes:
    return _write_digits(_read_digits(data))


def _respell(found: re.Match[bytes]) -> bytes:
    """Spell one number in the way that numeric keeps; leave text alone."""
    spelled = found.group()
    if spelled.startswith(b'"'):
        return spelled
    if spelled == b"-0.0":
        return b"0.0"
    return f"{Decimal(spelled.decode()):f}.0".encode()
