"""What every codec must do: a class of tests to derive from."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings

from flows.codecs import Codec, JSONCodec, MsgspecCodec, OrjsonCodec
from flows.errors import DecodeError, EncodeError
from tests.codec_values import KEPT, Point, assert_same, builtin_values, typed_values

__all__ = ["CODECS", "JSON_CODECS", "CodecConformance", "codec_id"]

JSON_CODECS: list[Codec] = [
    JSONCodec(),
    JSONCodec(storage="bytea"),
    OrjsonCodec(),
    OrjsonCodec(storage="bytea"),
    MsgspecCodec(format="json"),
    MsgspecCodec(format="json", storage="bytea"),
]
CODECS: list[Codec] = [*JSON_CODECS, MsgspecCodec()]


def codec_id(codec: Codec) -> str:
    return f"{codec.name}-{codec.storage}"


class CodecConformance:
    """Derive and parametrize with `codec`: every promise of `Codec` is tested on it."""

    @pytest.mark.parametrize(("value", "kind"), KEPT)
    def test_it_keeps_the_value(self, codec: Codec, value: Any, kind: Any) -> None:
        kept = codec.decode(codec.encode(value), kind)
        assert kept == value
        assert type(kept) is type(value)
        assert_same(codec.decode(codec.encode(kept), kind), kept)

    @settings(deadline=None, max_examples=60)
    @given(value=builtin_values)
    def test_plain_builtins_need_no_annotation(self, codec: Codec, value: Any) -> None:
        kept = codec.decode(codec.encode(value), Any)
        assert kept == value
        assert codec.encode(kept) == codec.encode(value)

    @settings(deadline=None, max_examples=60)
    @given(case=typed_values)
    def test_what_it_gives_back_is_written_the_same(
        self, codec: Codec, case: tuple[Any, Any]
    ) -> None:
        value, kind = case
        kept = codec.decode(codec.encode(value), kind)
        assert kept == value
        assert codec.encode(kept) == codec.encode(value)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"b": 1, "aa": {"y": 2, "x": 3}}, {"aa": {"x": 3, "y": 2}, "b": 1}),
            ({2: "b", 10: "a"}, {10: "a", 2: "b"}),
            ({"n": -0.0, "bb": 1}, {"bb": 1, "n": 0.0}),
            ({-0.0: [1]}, {0.0: [1]}),
            ([Point(1, -0.0), {1.0, -0.0, -5.0}], [Point(1, 0.0), {-5.0, 0.0, 1.0}]),
            ({"k": OrderedDict(b=1, a=2)}, {"k": {"a": 2, "b": 1}}),
        ],
    )
    def test_equal_values_give_equal_bytes(self, codec: Codec, one: Any, other: Any) -> None:
        assert one == other
        assert codec.encode(one) == codec.encode(other)

    def test_a_value_of_another_type_is_an_error_that_names_the_place(self, codec: Codec) -> None:
        data = codec.encode({"jobs": [1, "two"]})
        with pytest.raises(DecodeError) as caught:
            codec.decode(data, dict[str, list[int]])
        assert caught.value.type_name == "dict[str, list[int]]"
        assert "[1]" in caught.value.reason

    @pytest.mark.parametrize("data", [b"", b"{", b"\xc1", b'"\xff"', b"[1]]"])
    def test_bytes_that_are_no_payload_are_a_decode_error(self, codec: Codec, data: bytes) -> None:
        with pytest.raises(DecodeError):
            codec.decode(data, list[str])

    @pytest.mark.parametrize("value", [object(), 1j, lambda: None, int, iter([1]), OSError("x")])
    def test_a_class_that_it_does_not_know_is_refused(self, codec: Codec, value: Any) -> None:
        with pytest.raises(EncodeError, match=type(value).__name__) as caught:
            codec.encode({"jobs": [0, {"a b": value}]})
        assert caught.value.path == "$.jobs[1]['a b']"

    def test_a_value_that_contains_itself_is_refused(self, codec: Codec) -> None:
        value: dict[str, Any] = {"inner": []}
        value["inner"].append(value)
        with pytest.raises(EncodeError, match="contains itself") as caught:
            codec.encode(value)
        assert caught.value.path == "$.inner[0]"

    def test_a_value_nested_without_end_is_refused(self, codec: Codec) -> None:
        value: Any = 1
        for _ in range(100_000):
            value = [value]
        with pytest.raises(EncodeError, match="too deeply"):
            codec.encode(value)

    def test_text_with_a_lone_surrogate_is_refused(self, codec: Codec) -> None:
        with pytest.raises(EncodeError, match=r"U\+D800 at index 1") as caught:
            codec.encode([{"name": "a\ud800"}])
        assert caught.value.path == "$[0].name"

    def test_it_equals_another_of_its_name_and_storage(self, codec: Codec) -> None:
        others = [other for other in CODECS if other == codec]
        assert len(others) <= 1
        assert all(hash(other) == hash(codec) for other in others)
        assert codec != codec.name
