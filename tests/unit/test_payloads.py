"""Payloads: which columns a value goes to, and which codec reads it back."""

from __future__ import annotations

from typing import Any

import pytest

from flows import ConfigError, DecodeError, EncodeError, JSONCodec, MsgspecCodec, OrjsonCodec
from flows.payloads import NO_PAYLOAD, Payload, decode, encode


def test_json_is_stored_without_a_name_as_the_reference_does() -> None:
    assert encode(JSONCodec(), {"b": 1, "a": 2}) == Payload(b'{"a":2,"b":1}', None, None)


def test_another_codec_is_stored_with_its_name() -> None:
    assert encode(OrjsonCodec(), [1]) == Payload(b"[1]", None, "orjson")


def test_the_storage_of_the_codec_chooses_the_column() -> None:
    assert encode(MsgspecCodec(), 3) == Payload(None, b"\x03", "msgpack")
    assert encode(JSONCodec(storage="bytea"), 3) == Payload(None, b"3", None)


@pytest.mark.parametrize(
    "payload",
    [
        Payload(b"[1, 2]", None, None),
        Payload(b"[1, 2]", None, "json"),
        Payload(None, b"[1,2]", None),
        Payload(b"[1,2]", None, "orjson"),
        Payload(None, b"\x92\x01\x02", "msgpack"),
    ],
)
def test_a_payload_is_read_by_the_codec_it_names(payload: Payload) -> None:
    assert decode(payload, list[int]) == [1, 2]


def test_an_empty_binary_payload_is_a_payload() -> None:
    with pytest.raises(DecodeError, match="msgpack") as caught:
        decode(Payload(None, b"", "msgpack"), Any)
    assert "nothing is stored" not in str(caught.value)


def test_nothing_stored_is_an_error() -> None:
    with pytest.raises(DecodeError, match=r"cannot decode into .*int.*: nothing is stored"):
        decode(NO_PAYLOAD, int)


def test_a_codec_that_is_not_registered_is_named() -> None:
    with pytest.raises(ConfigError, match="no codec named 'pickle' is registered"):
        decode(Payload(b"1", None, "pickle"), int)


def test_a_value_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"\$\[1\]"):
        encode(JSONCodec(), [1, float("nan")])
