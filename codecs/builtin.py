"""The codecs that come with flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
import orjson

from flows.codecs.base import Codec, Storage
from flows.codecs.packed import PackedCodec
from flows.codecs.text import TextCodec, write_canonical
from flows.codecs.unfold import LEAVES, unfold
from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.codecs.checked import CheckedCodec

__all__ = ["JSONCodec", "MsgspecCodec", "OrjsonCodec"]

_ORJSON_OPTIONS = (
    orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_ORJSON_INTEGERS = (-(2**63), 2**64 - 1)


class JSONCodec(TextCodec):
    """Canonical JSON: sorted keys, no spaces; the default.

    Keeps integers of up to 4300 digits. Bytes are written as base64, a dict's keys as text: both
    come back as they were where the annotation says what they were. Offsets from UTC are written
    in whole minutes.
    """

    def __init__(self, storage: Storage = "jsonb") -> None:
        super().__init__("json", storage, write_canonical)

    def __repr__(self) -> str:
        return f"JSONCodec(storage={self.storage!r})"


class OrjsonCodec(TextCodec):
    """JSON written by orjson: as `JSONCodec` writes it, with integers of 64 bits at most."""

    def __init__(self, storage: Storage = "jsonb") -> None:
        super().__init__("orjson", storage, _write_with_orjson, _ORJSON_INTEGERS)

    def __repr__(self) -> str:
        return f"OrjsonCodec(storage={self.storage!r})"


class MsgspecCodec(Codec):
    """MessagePack (stored as bytea), or JSON, by msgspec.

    MessagePack keeps bytes as they are, NaN and infinities, NUL in text, and keys that are not
    text. Its integers have 64 bits at most. As JSON it writes the same text as `JSONCodec`.
    """

    def __init__(
        self,
        format: Literal["msgpack", "json"] = "msgpack",  # noqa: A002  the word for it
        storage: Storage | None = None,
    ) -> None:
        if format not in ("msgpack", "json"):
            raise ConfigError(f"format must be 'msgpack' or 'json', not {format!r}")
        if format == "msgpack" and storage not in (None, "bytea"):
            raise ConfigError(f"MessagePack is stored as 'bytea', not as {storage!r}")
        self.format = format
        self._form: CheckedCodec = (
            PackedCodec("msgpack")
            if format == "msgpack"
            else TextCodec("msgspec-json", storage or "jsonb", write_canonical)
        )
        self.name = self._form.name
        self.storage = self._form.storage

    def encode(self, value: Any) -> bytes:
        """Return `value` in the codec's format."""
        return self._form.encode(value)

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002  the base class's name for it
        """Return `data` as `type`."""
        return self._form.decode(data, type)

    def __repr__(self) -> str:
        return f"MsgspecCodec(format={self.format!r}, storage={self.storage!r})"


def _write_with_orjson(value: Any) -> bytes:
    return orjson.dumps(value, _simplify, _ORJSON_OPTIONS)


def _simplify(value: Any) -> Any:
    """Hand orjson what it does not write, or would write in another way than the other codecs."""
    if type(value) in LEAVES:
        return msgspec.to_builtins(value)
    return sorted(value) if isinstance(value, (set, frozenset)) else unfold(value)
