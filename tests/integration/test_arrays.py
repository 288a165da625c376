"""Arrays in binary format: what Postgres reads is what was given."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.sql import arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def connection(server_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        arrays.register(connection.adapters)
        yield connection


def echo(connection: psycopg.Connection[Any], array: arrays.BinaryArray, kind: str) -> list[Any]:
    """Return the elements as a statement sees them when it unnests the array."""
    query = f"SELECT x FROM unnest(%s::{kind}) WITH ORDINALITY AS u (x, n) ORDER BY n"
    return [row[0] for row in connection.execute(query, (array,)).fetchall()]


@quick
@given(values=st.lists(st.none() | storable_text))
def test_text(connection: psycopg.Connection[Any], values: list[str | None]) -> None:
    assert echo(connection, arrays.TextArray(values), "text[]") == values


@quick
@given(values=st.lists(st.none() | st.binary()))
def test_bytes(connection: psycopg.Connection[Any], values: list[bytes | None]) -> None:
    assert echo(connection, arrays.ByteaArray(values), "bytea[]") == values


@quick
@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers(connection: psycopg.Connection[Any], values: list[int | None]) -> None:
    assert echo(connection, arrays.Int8Array(values), "bigint[]") == values


@quick
@given(values=st.lists(st.none() | st.floats(allow_nan=False)))
def test_floats(connection: psycopg.Connection[Any], values: list[float | None]) -> None:
    assert echo(connection, arrays.Float8Array(values), "float8[]") == values


@quick
@given(values=st.lists(st.uuids()))
def test_uuids(connection: psycopg.Connection[Any], values: list[uuid.UUID]) -> None:
    array = arrays.UuidArray([str(value) for value in values])
    assert echo(connection, array, "uuid[]") == values


@quick
@given(
    values=st.lists(
        st.none() | st.dictionaries(storable_text, st.integers() | st.none() | st.booleans())
    )
)
def test_documents(
    connection: psycopg.Connection[Any], values: list[dict[str, Any] | None]
) -> None:
    documents = [None if value is None else json.dumps(value).encode() for value in values]
    assert echo(connection, arrays.JsonbArray(documents), "jsonb[]") == values


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (arrays.TextArray, "text[]"),
        (arrays.ByteaArray, "bytea[]"),
        (arrays.Int8Array, "bigint[]"),
        (arrays.Float8Array, "float8[]"),
        (arrays.JsonbArray, "jsonb[]"),
        (arrays.UuidArray, "uuid[]"),
    ],
)
def test_an_empty_array_is_one(connection: psycopg.Connection[Any], array: Any, kind: str) -> None:
    assert echo(connection, array([]), kind) == []
    query = f"SELECT %s::{kind} IS NOT NULL, cardinality(%s::{kind})"
    assert connection.execute(query, (array([]), array([]))).fetchone() == (True, 0)


def test_nulls_alone(connection: psycopg.Connection[Any]) -> None:
    assert echo(connection, arrays.JsonbArray([None, None]), "jsonb[]") == [None, None]
