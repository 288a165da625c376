"""Payloads: values as they are stored, each with the name of the codec that wrote it.

The garbage collector does not count them, as `flows.records` has it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from flows.codecs import codec_named
from flows.config import DEFAULT_MAX_PAYLOAD
from flows.errors import DecodeError, PayloadSizeError

if TYPE_CHECKING:
    from flows.codecs import Codec

__all__ = ["DEFAULT_CODEC_NAME", "NO_PAYLOAD", "Payload", "decode", "digest_of", "encode"]

DEFAULT_CODEC_NAME = "json"


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A value in the columns it is stored in.

    Attributes:
        json: JSON as UTF-8, for a jsonb column, or None.
        binary: bytes, for a bytea column, or None.
        codec: name of the codec; None means `json`, as the reference package writes it.
    """

    json: bytes | None
    binary: bytes | None
    codec: str | None

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(self.json or self.binary or b"")


NO_PAYLOAD = Payload(None, None, None)


def encode(codec: Codec, value: Any, max_bytes: int = DEFAULT_MAX_PAYLOAD) -> Payload:
    """Return `value` as `codec` stores it.

    Raises:
        EncodeError: the codec cannot keep the value.
        PayloadSizeError: it takes more than `max_bytes`.
    """
    name = None if codec.name == DEFAULT_CODEC_NAME else codec.name
    data = codec.encode(value)
    if len(data) > max_bytes:
        raise PayloadSizeError(len(data), max_bytes)
    return Payload(data, None, name) if codec.storage == "jsonb" else Payload(None, data, name)


def digest_of(payload: Payload) -> bytes:
    """Return the BLAKE2b of a payload's bytes, 16 of its own; equal values give equal ones."""
    return blake2b(payload.json or payload.binary or b"", digest_size=16).digest()


def decode(payload: Payload, value_type: Any) -> Any:
    """Return the stored value as `value_type`, by the codec that its name tells.

    Raises:
        ConfigError: no codec of that name is registered.
        DecodeError: the bytes do not fit the type.
    """
    codec = codec_named(payload.codec or DEFAULT_CODEC_NAME)
    data = payload.binary if payload.json is None else payload.json
    if data is None:
        raise DecodeError(codec.name, str(value_type), "nothing is stored")
    return codec.decode(data, value_type)
