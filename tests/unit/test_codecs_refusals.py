"""What cannot be kept is refused, with the path to it; what does not fit a type, with the type."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any

import attrs
import msgspec
import pydantic
import pytest

from flows.codecs import Codec, JSONCodec, MsgspecCodec, OrjsonCodec
from flows.errors import DecodeError, EncodeError
from tests.codec_conformance import CODECS, JSON_CODECS, codec_id

PACKED = MsgspecCodec()
IN_JSONB = [codec for codec in JSON_CODECS if codec.storage == "jsonb"]
NAN = float("nan")


class Measure(msgspec.Struct, rename="camel"):
    raw_value: float
    note: str | None = None


class Tagged(msgspec.Struct, tag="t", array_like=True):
    value: Any


@dataclass
class Report:
    rows: list[Measure]


@attrs.define
class Sample:
    value: Any
    _hidden: int = 0


class Model(pydantic.BaseModel):
    ratio: float | None
    tags: set[float] = set()


class Half(enum.Enum):
    HALF = 0.5


def refusal(codec: Codec, value: Any) -> EncodeError:
    with pytest.raises(EncodeError) as caught:
        codec.encode(value)
    assert caught.value.codec == codec.name
    return caught.value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (NAN, "$"),
        ([None, NAN], "$[1]"),
        ({"a": None, "b": {"c": [float("-inf")]}}, "$.b.c[0]"),
        (Report([Measure(1.0, "null"), Measure(NAN)]), "$.rows[1].rawValue"),
        (Sample((1, float("inf"))), "$.value[1]"),
        (Tagged(NAN), "$[1]"),
        ({"m": Model(ratio=NAN)}, "$.m"),
        (Model(ratio=1.0, tags={NAN}), "$"),
        ({NAN: 1}, "$[nan]"),
        ({2**70: None, "n": NAN}, "$.n"),
    ],
)
@pytest.mark.parametrize("codec", JSON_CODECS, ids=codec_id)
def test_json_refuses_nan_and_infinities(codec: Codec, value: Any, path: str) -> None:
    if codec.name == "orjson" and path == "$.n":
        path = f"$[{2**70}]"  # whose key is refused first
    assert refusal(codec, value).path == path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\0", "$"),
        ({"a": ["\\u0000", "x\0"]}, "$.a[1]"),
        ({"a\0": 1}, r"$['a\x00']"),
        ([Measure(1.0, "\0")], "$[0].note"),
        ({"\0"}, "$[...]"),
    ],
)
@pytest.mark.parametrize("codec", IN_JSONB, ids=codec_id)
def test_jsonb_refuses_nul_in_text(codec: Codec, value: Any, path: str) -> None:
    error = refusal(codec, value)
    assert error.path == path
    assert "NUL" in error.reason


@pytest.mark.parametrize("codec", [OrjsonCodec(), OrjsonCodec(storage="bytea"), PACKED])
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_refused(codec: Codec, number: int) -> None:
    for value, path in (
        ([{"n": number}], "$[0].n"),
        (Tagged(number), "$[1]"),
        ({number: 1}, f"$[{number}]"),
    ):
        error = refusal(codec, value)
        assert (error.path, error.reason) == (path, "the integer has more than 64 bits")


def test_an_integer_longer_than_python_converts_is_refused() -> None:
    for codec in (JSONCodec(), MsgspecCodec(format="json")):
        assert refusal(codec, {"n": -(10**4300)}).path == "$.n"


@pytest.mark.parametrize("codec", JSON_CODECS, ids=codec_id)
@pytest.mark.parametrize("key", [True, None, (1, 2), frozenset({1})])
def test_a_key_that_would_come_back_as_text_is_refused(codec: Codec, key: Any) -> None:
    error = refusal(codec, {"a": {key: 1}})
    assert error.path == f"$.a[{key!r}]"
    assert type(key).__name__ in error.reason


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({1: "a", "1": "b"}, "$"),
        ({"x": {uuid.UUID(int=0): 1, str(uuid.UUID(int=0)): 2}}, "$.x"),
        ({"x": {dt.date(2024, 1, 1): 1, "2024-01-01": 2}}, "$.x"),
    ],
)
@pytest.mark.parametrize("codec", JSON_CODECS, ids=codec_id)
def test_keys_that_become_one_are_refused(codec: Codec, value: Any, path: str) -> None:
    error = refusal(codec, value)
    assert error.path == path
    assert "written the same" in error.reason


def test_message_pack_refuses_keys_that_become_one_or_cannot_be_read() -> None:
    same = {uuid.UUID(int=0): 1, str(uuid.UUID(int=0)): 2}
    assert "written the same" in refusal(PACKED, same).reason
    assert "as a key" in refusal(PACKED, {msgspec.structs.replace(_FROZEN): 1}).reason


class Frozen(msgspec.Struct, frozen=True):
    x: int = 1


_FROZEN = Frozen()


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
def test_an_object_that_cannot_be_read_is_refused(codec: Codec) -> None:
    class Odd(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        held: Any

    assert refusal(codec, {"odd": Odd(held=object())}).path == "$.odd"


def test_bytes_in_a_model_are_kept_as_its_own_json_keeps_them() -> None:
    class Plain(pydantic.BaseModel):
        data: bytes

    class Base64(Plain):
        model_config = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    for codec in CODECS:
        kept = codec.decode(codec.encode(Base64(data=b"\xff")), Base64)
        assert kept == Base64(data=b"\xff")
        assert codec.decode(codec.encode(Plain(data=b"text")), Plain) == Plain(data=b"text")
        assert "val_json_bytes" in refusal(codec, [Plain(data=b"\xff")]).reason


class Weak(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("asked the subclass")


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
def test_subclasses_of_builtins_are_kept_as_the_builtin(codec: Codec) -> None:
    class Ratio(float):
        pass

    class Count(int):
        pass

    value = {"text": Weak("w"), "ratio": Ratio(0.5), "count": Count(7), Weak("k"): Half.HALF}
    expected = {"text": "w", "ratio": 0.5, "count": 7, "k": 0.5}
    kept = codec.decode(codec.encode(value), Any)
    assert kept == expected
    assert {type(item) for item in kept.values()} == {str, float, int}


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
@pytest.mark.parametrize(
    ("value", "kind", "name", "reason"),
    [
        ("5", int, "int", "Expected `int`, got `str`"),
        (5, None, "None", "Expected `null`, got `int`"),
        (2.0, int, "int", "Expected `int`, got `float`"),
        ({"rows": [{"rawValue": "x"}]}, Report, "Report", "at `$.rows[0].rawValue`"),
        ({"rows": [{}]}, Report, "Report", "missing required field `rawValue` - at `$.rows[0]`"),
        ([1], list[Model], "list[", "at `$[0]`"),
        (
            {"m": {"ratio": "x"}},
            dict[str, Model],
            "dict[str, ",
            "unable to parse string as a number - at `ratio`",
        ),
        ([1], deque[int], "collections.deque[int]", "Expected `collections.deque"),
        (1, complex, "complex", "Expected `complex`, got `int`"),
        ("x", dt.date | uuid.UUID, "datetime.date | uuid.UUID", "more than one str-like type"),
        (0.5, Half, "Half", "either all str or all int"),
        (1, "int", "int", "is not supported"),
        (1, Sample, "Sample", "private attrs fields are not stored: Sample._hidden"),
        ([1], Annotated[list[str], {}], "Annotated[list[str], {}]", "at `$[0]`"),
    ],
)
def test_what_does_not_fit_the_annotation_is_an_error(
    codec: Codec, value: Any, kind: Any, name: str, reason: str
) -> None:
    data = codec.encode(value)
    for _ in range(2):  # the second time from what is remembered of the type
        with pytest.raises(DecodeError) as caught:
            codec.decode(data, kind)
        assert caught.value.codec == codec.name
        assert caught.value.type_name.startswith(name)
        assert reason in caught.value.reason


class Checked(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise LookupError("x is negative")


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
def test_whatever_a_type_raises_is_a_decode_error(codec: Codec) -> None:
    with pytest.raises(DecodeError, match="x is negative"):
        codec.decode(codec.encode({"x": -1}), Checked)
