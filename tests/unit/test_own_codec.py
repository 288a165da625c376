"""A codec of one's own needs no more than to be a workflow's."""

from __future__ import annotations

from typing import Any

import pytest

from flows import Codec, ConfigError, Context, Registry, payloads


class ReversedCodec(Codec):
    name = "reversed"
    storage = "bytea"

    def encode(self, value: Any) -> bytes:
        return str(value)[::-1].encode()

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002
        return data.decode()[::-1]


class ThiefCodec(ReversedCodec):
    name = "json"


def test_payloads_find_the_codec_of_their_workflow() -> None:
    registry = Registry()

    @registry.workflow("mirror", codec=ReversedCodec())
    def mirror(wf: Context, text: str) -> str:
        return text

    payload = payloads.encode(mirror.codec, "abc")
    assert payload == payloads.Payload(None, b"cba", "reversed")
    assert payloads.decode(payload, str) == "abc"


def test_a_codec_cannot_take_the_name_of_another() -> None:
    with pytest.raises(ConfigError, match="'json' is taken"):
        Registry().workflow("thief", codec=ThiefCodec())
