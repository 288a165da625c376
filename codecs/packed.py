"""MessagePack: bytes in a bytea, which Postgres keeps as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from flows.codecs.checked import CheckedCodec
from flows.codecs.text import hides_sets
from flows.codecs.unfold import unfold
from flows.codecs.walk import Domain

if TYPE_CHECKING:
    from flows.codecs.decoding import Plan

__all__ = ["PackedCodec"]

_pack = msgspec.msgpack.Encoder(order="deterministic", enc_hook=unfold).encode
_pack_plain = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

_HARMLESS = frozenset({type(None), bool, int, str, bytes})
_MINUS_ZERO = b"\xcb\x80" + bytes(7)
_ZERO = b"\xcb" + bytes(8)
# The first byte of an array becomes A; lengths from 16 on follow it in two bytes, or in four.
_HEADS = bytes(0x41 if 0x90 <= byte <= 0x9F or byte in (0xDC, 0xDD) else 0 for byte in range(256))
_find_long = re.compile(rb"\xdc..[\x90-\x9f\xdc\xdd]", re.DOTALL).search
_find_very_long = re.compile(rb"\xdd....[\x90-\x9f\xdc\xdd]", re.DOTALL).search


class PackedCodec(CheckedCodec):
    """Values as MessagePack."""

    def __init__(self, name: str) -> None:
        domain = Domain(name, False, True, (-(2**63), 2**64 - 1))
        super().__init__(domain, "bytea", msgspec.msgpack.Decoder)

    def _encode(self, value: Any) -> bytes:
        try:
            data = _pack(value)
        except Exception:  # noqa: BLE001  whatever it was, the walk finds it and says where
            data = self._encode_plain(value)
        if type(value) in _HARMLESS:
            return data
        if _nests_arrays(data) and hides_sets(value):
            data = self._encode_plain(value)
        if _MINUS_ZERO in data:
            data = self._without_minus_zero(data, value)
        return data

    def _write_plain(self, form: Any) -> bytes:
        return _pack_plain(form)

    def _read(self, plan: Plan, data: bytes) -> Any:
        return plan.decode(data)

    def _without_minus_zero(self, data: bytes, value: Any) -> bytes:
        """Write -0.0 as the 0.0 that it equals.

        The bytes may belong to a text or to a bytes object instead. Then the two readings differ,
        as -0.0 and 0.0 do not, and the value is walked.
        """
        changed = data.replace(_MINUS_ZERO, _ZERO)
        try:
            is_safe = bool(_unpack(changed) == _unpack(data))
        except Exception:  # noqa: BLE001  keys that only their own type can hold
            is_safe = False
        return changed if is_safe else self._encode_plain(value)


def _nests_arrays(data: bytes) -> bool:
    """Return whether an array may begin with an array, as a set of sets does.

    Other bytes may look like it; that costs a closer look.
    """
    return (
        b"AA" in data.translate(_HEADS)
        or (b"\xdc" in data and _find_long(data) is not None)
        or (b"\xdd" in data and _find_very_long(data) is not None)
    )
