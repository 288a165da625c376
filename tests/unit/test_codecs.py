"""The built-in codecs keep what they promise, and write what they say they write."""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from flows.codecs import Codec, JSONCodec, MsgspecCodec, OrjsonCodec, decoding, unfold
from flows.errors import ConfigError, DecodeError
from tests.codec_conformance import CODECS, JSON_CODECS, CodecConformance, codec_id
from tests.codec_values import KEPT, builtin_values


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
class TestBuiltIn(CodecConformance):
    """The codecs that come with flows, in each storage."""


class Compressed(Codec):
    """A codec of one's own: another one's text, compressed."""

    name = "zlib"
    storage = "bytea"

    def __init__(self) -> None:
        self._inner = JSONCodec(storage="bytea")

    def encode(self, value: Any) -> bytes:
        return zlib.compress(self._inner.encode(value))

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002  the base class's name for it
        try:
            text = zlib.decompress(data)
        except zlib.error as error:
            raise DecodeError(self.name, str(type), str(error)) from error
        return self._inner.decode(text, type)


@pytest.mark.parametrize("codec", [Compressed()])
class TestOnesOwn(CodecConformance):
    """A codec of one's own can keep the same promises."""


def test_a_codec_of_ones_own_needs_two_methods() -> None:
    codec = Compressed()
    assert codec.decode(codec.encode({"a": [1]}), dict[str, list[int]]) == {"a": [1]}
    assert repr(codec) == "Compressed(name='zlib', storage='bytea')"
    assert codec == Compressed()
    assert codec != JSONCodec(storage="bytea")


def test_a_codec_without_its_methods_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="decode"):
        type("Half", (Codec,), {"encode": lambda self, value: b""})()


@pytest.mark.parametrize(
    ("codec", "name", "storage", "text"),
    [
        (JSONCodec(), "json", "jsonb", "JSONCodec(storage='jsonb')"),
        (JSONCodec(storage="bytea"), "json", "bytea", "JSONCodec(storage='bytea')"),
        (OrjsonCodec(), "orjson", "jsonb", "OrjsonCodec(storage='jsonb')"),
        (
            MsgspecCodec(),
            "msgpack",
            "bytea",
            "MsgspecCodec(format='msgpack', storage='bytea')",
        ),
        (
            MsgspecCodec(format="json"),
            "msgspec-json",
            "jsonb",
            "MsgspecCodec(format='json', storage='jsonb')",
        ),
    ],
)
def test_a_codec_says_what_it_is(codec: Codec, name: str, storage: str, text: str) -> None:
    assert (codec.name, codec.storage) == (name, storage)
    assert repr(codec) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JSONCodec(storage="text"), "'jsonb' or 'bytea', not 'text'"),  # type: ignore[arg-type]
        (lambda: OrjsonCodec(storage=""), "'jsonb' or 'bytea', not ''"),  # type: ignore[arg-type]
        (lambda: MsgspecCodec(storage="jsonb"), "MessagePack is stored as 'bytea'"),
        (lambda: MsgspecCodec(format="xml"), "'msgpack' or 'json', not 'xml'"),  # type: ignore[arg-type]
        (lambda: MsgspecCodec(format="json", storage="text"), "not 'text'"),  # type: ignore[arg-type]
    ],
)
def test_options_that_cannot_work_are_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, 2.0, None], "a": {"ü": True}}, '{"a":{"ü":true},"b":[1,2.0,null]}'),
        ([1e16, -1e22, 1e-7, -0.0], "[10000000000000000.0,-10000000000000000000000.0,1e-7,0.0]"),
        ({"n": -0.0, "text": "-0.0, 1e16, \\"}, '{"n":0.0,"text":"-0.0, 1e16, \\\\"}'),
        ({10: "x", 9: "y"}, '{"10":"x","9":"y"}'),
        ({"é", "z"}, '["z","é"]'),
        (b"\xff\x00", '"/wA="'),
    ],
)
@pytest.mark.parametrize("codec", JSON_CODECS, ids=codec_id)
def test_json_is_canonical(codec: Codec, value: Any, text: str) -> None:
    assert codec.encode(value).decode() == text


@pytest.mark.parametrize(("value", "kind"), KEPT)
def test_the_json_codecs_write_the_same_text(value: Any, kind: Any) -> None:
    assert len({codec.encode(value) for codec in JSON_CODECS}) == 1


@settings(deadline=None, max_examples=60)
@given(builtin_values)
def test_the_json_codecs_write_the_same_text_for_any_builtins(value: Any) -> None:
    assert len({codec.encode(value) for codec in JSON_CODECS}) == 1


def test_message_pack_keeps_what_json_cannot() -> None:
    codec = MsgspecCodec()
    value = {1: b"\x00", None: "a\0b", (1, "x"): float("inf")}
    kept = codec.decode(codec.encode(value), Any)
    assert kept == value
    assert type(kept[1, "x"]) is float


def test_json_in_a_bytea_keeps_nul() -> None:
    codec = JSONCodec(storage="bytea")
    assert codec.decode(codec.encode({"a\0": "\0"}), Any) == {"a\0": "\0"}
    assert JSONCodec().encode("\\u0000") == b'"\\\\u0000"'


def test_integers_longer_than_64_bits_are_json() -> None:
    value = {"n": [10**4299, -(2**70)], "none": None}
    for codec in (JSONCodec(), MsgspecCodec(format="json")):
        assert codec.decode(codec.encode(value), Any) == value


def test_how_deep_a_value_may_be_nested_does_not_depend_on_the_callers_stack() -> None:
    value: Any = "deep"
    for _ in range(600):
        value = [value]

    def at_depth(frames: int, function: Any, *args: Any) -> Any:
        return at_depth(frames - 1, function, *args) if frames else function(*args)

    for codec in (JSONCodec(), MsgspecCodec()):
        data = codec.encode(value)
        assert at_depth(700, codec.encode, value) == data
        kept = at_depth(700, codec.decode, data, Any)
        for _ in range(600):
            (kept,) = kept
        assert kept == "deep"


def test_a_payload_too_large_for_its_column_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = JSONCodec()
    monkeypatch.setattr(codec, "_largest", 10)
    assert codec.encode("x" * 8) == b'"xxxxxxxx"'
    with pytest.raises(Exception, match=r"cannot keep \$: it takes 11 bytes"):
        codec.encode("x" * 9)


def test_numbers_that_others_wrote_keep_their_digits_for_a_decimal() -> None:
    data = b'{"bb": 1.10, "a": 0.12345678901234567890}'
    kept = JSONCodec().decode(data, dict[str, Decimal])
    assert {key: str(item) for key, item in kept.items()} == {
        "a": "0.12345678901234567890",
        "bb": "1.10",
    }


def test_types_made_on_the_fly_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfold, "_MOST_TYPES", 10)
    monkeypatch.setattr(unfold, "_unfolders", {})
    monkeypatch.setattr(decoding, "_MOST_TYPES", 10)
    codec = OrjsonCodec()
    for number in range(50):
        kind = msgspec.defstruct(f"Made{number}", [("x", int)])
        assert codec.decode(codec.encode(kind(x=number)), kind) == kind(x=number)
    assert len(unfold._unfolders) <= 10
    assert len(codec._decoders._plans) <= 10
