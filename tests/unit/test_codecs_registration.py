"""A stored payload says the name of its codec; the codec is found by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flows.codecs import (
    Codec,
    JSONCodec,
    MsgspecCodec,
    OrjsonCodec,
    codec_named,
    register_codec,
    registration,
)
from flows.errors import ConfigError

if TYPE_CHECKING:
    from flows.codecs.base import Storage


@pytest.fixture(autouse=True)
def _registered_for_one_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_codecs", dict(registration._codecs))


class Upper(Codec):
    def __init__(self, name: Any = "upper", storage: Any = "bytea") -> None:
        self.name = name
        self.storage: Storage = storage

    def encode(self, value: Any) -> bytes:
        return str(value).upper().encode()

    def decode(self, data: bytes, type: Any) -> Any:  # noqa: A002  the base class's name for it
        return data.decode()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("json", JSONCodec),
        ("orjson", OrjsonCodec),
        ("msgpack", MsgspecCodec),
        ("msgspec-json", MsgspecCodec),
    ],
)
def test_the_built_in_codecs_are_always_found(name: str, kind: type[Codec]) -> None:
    codec = codec_named(name)
    assert type(codec) is kind
    assert codec.name == name


def test_a_registered_codec_is_found() -> None:
    codec = Upper()
    register_codec(codec)
    assert codec_named("upper") is codec


def test_an_unknown_name_says_which_are_known_and_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no codec named 'upper'") as caught:
        codec_named("upper")
    known = str(caught.value).partition("(known: ")[2].partition(")")[0].split(", ")
    assert {"json", "msgpack", "msgspec-json", "orjson"} <= set(known)
    assert known == sorted(known)
    assert "register_codec" in str(caught.value)


def test_a_name_belongs_to_one_class() -> None:
    class Lower(Upper):
        pass

    register_codec(Upper())
    with pytest.raises(ConfigError, match=r"'upper' is taken by .*Upper: give .*Lower another"):
        register_codec(Lower())
    with pytest.raises(ConfigError, match=r"'json' is taken by .*JSONCodec"):
        register_codec(Upper("json"))
    assert type(codec_named("json")) is JSONCodec


def test_another_instance_of_the_class_takes_over() -> None:
    register_codec(Upper())
    second = Upper(storage="jsonb")
    register_codec(second)
    assert codec_named("upper") is second
    register_codec(JSONCodec(storage="bytea"))
    assert codec_named("json").decode(b'{"a": 1}', Any) == {"a": 1}


@pytest.mark.parametrize("name", ["", " ", "a\0b", None, 5])
def test_a_name_that_cannot_be_stored_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="Upper: a codec's name must be text"):
        register_codec(Upper(name))


def test_a_codec_needs_a_storage_and_a_name() -> None:
    with pytest.raises(ConfigError, match="storage must be 'jsonb' or 'bytea', not 'text'"):
        register_codec(Upper(storage="text"))
    nameless = Upper()
    del nameless.name
    with pytest.raises(ConfigError, match="name must be text, not None"):
        register_codec(nameless)


@pytest.mark.parametrize("thing", [JSONCodec, "json", None])
def test_what_is_no_codec_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigError, match="not a codec"):
        register_codec(thing)
