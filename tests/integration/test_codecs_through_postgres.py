"""What a codec wrote comes back from Postgres as it was: the first execution equals the replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings

from tests.codec_conformance import CODECS, JSON_CODECS
from tests.codec_values import KEPT, Point, assert_same, builtin_values, typed_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.codecs import Codec


class Store:
    """A table with a column for each storage."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE payloads (document jsonb, binary_form bytea)")

    def keep(self, codec: Codec, data: bytes) -> bytes:
        """Store what `codec` wrote, and return what its `decode` would be given."""
        row = self._connection.execute(
            "INSERT INTO payloads VALUES (%s::text::jsonb, %b)"
            " RETURNING document::text, binary_form",
            (data.decode(), None) if codec.storage == "jsonb" else (None, data),
        ).fetchone()
        assert row is not None
        document, binary_form = row
        return bytes(binary_form) if document is None else str(document).encode()


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    with psycopg.connect(dsn) as connection:
        yield Store(connection)


def assert_replayed(store: Store, value: Any, kind: Any) -> None:
    """Assert that every codec gives back the same for what it wrote and for what was stored."""
    for codec in CODECS:
        data = codec.encode(value)
        stored = store.keep(codec, data)
        first = codec.decode(data, kind)
        assert first == value
        assert_same(codec.decode(stored, kind), first)
        # Without the annotation as well: dicts in place of objects.
        assert_same(codec.decode(stored, Any), codec.decode(data, Any))


def test_each_kind_of_value_is_replayed_as_it_was(store: Store) -> None:
    for value, kind in KEPT:
        assert_replayed(store, value, kind)


def test_generated_builtins_are_replayed_as_they_were(store: Store) -> None:
    @settings(deadline=None, max_examples=200)
    @given(builtin_values)
    def check(value: Any) -> None:
        assert_replayed(store, value, Any)

    check()


def test_generated_objects_are_replayed_as_they_were(store: Store) -> None:
    @settings(deadline=None, max_examples=200)
    @given(typed_values)
    def check(case: tuple[Any, Any]) -> None:
        assert_replayed(store, *case)

    check()


def test_every_power_of_two_and_of_ten_is_replayed_as_a_float(store: Store) -> None:
    value = [2.0**power for power in range(-1074, 1024)]
    value += [float(f"{sign}1.7e{power}") for power in range(-323, 308) for sign in "+-"]
    assert_replayed(store, value, list[float])


def test_a_dict_is_replayed_in_the_order_it_had(store: Store) -> None:
    value = {"ccc": 1, "bb": {"zz": 1, "y": 2}, "a": 3, "B": 4, "é": 5, "\U0001f600": 6}
    for codec in CODECS:
        data = codec.encode(value)
        first, replayed = codec.decode(data, Any), codec.decode(store.keep(codec, data), Any)
        assert list(first) == list(replayed) == sorted(value)
        assert list(first["bb"]) == list(replayed["bb"]) == ["y", "zz"]


def test_jsonb_itself_reorders_and_respells(store: Store) -> None:
    """If this fails, Postgres has changed, and the codecs do work that is no longer needed."""
    codec = JSON_CODECS[0]
    assert store.keep(codec, b'{"bb":1e16,"a":-0.0}') == b'{"a": 0.0, "bb": 10000000000000000}'


def test_integers_of_any_length_are_replayed(store: Store) -> None:
    for codec in (codec for codec in JSON_CODECS if codec.name != "orjson"):
        data = codec.encode({"n": 10**4299 - 1})
        assert codec.decode(store.keep(codec, data), dict[str, int]) == {"n": 10**4299 - 1}


def test_the_deepest_value_that_a_codec_takes_fits_a_column(store: Store) -> None:
    value: Any = Point(1)
    for _ in range(240):
        value = {"inner": [value]}
    for codec in CODECS:
        if codec.name != "orjson":
            data = codec.encode(value)
            assert codec.decode(store.keep(codec, data), Any) == codec.decode(data, Any)


def test_a_payload_decodes_whatever_storage_its_codec_has_today(store: Store) -> None:
    value = {"bb": 1e16, "a": [b"\xff", None]}
    for then in JSON_CODECS:
        stored = store.keep(then, then.encode(value))
        for today in JSON_CODECS:
            assert today.decode(stored, dict[str, float | list[bytes | None]]) == value
