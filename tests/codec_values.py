"""Values that every codec must keep, strategies that make more, and how to tell them apart."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

__all__ = ["KEPT", "Address", "Colour", "Point", "assert_same", "builtin_values", "typed_values"]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Mood(enum.StrEnum):
    CALM = "calm"


class Point(msgspec.Struct, frozen=True, order=True):
    x: int
    y: float = 0.0


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square", rename="camel"):
    side_length: float


class Pair(msgspec.Struct, array_like=True, tag=True):
    left: int
    right: str


class Tree(msgspec.Struct):
    name: str
    leaves: dict[str, Tree] = {}
    parent: Tree | None = None


@dataclass
class Job:
    id: uuid.UUID
    due: dt.datetime
    parts: list[Point] = field(default_factory=list)
    _secret: int = 0


@dataclass(slots=True, frozen=True)
class Size:
    width: int
    height: int = field(default=3, kw_only=True)


class Options(TypedDict, total=False):
    name: str
    ratio: float
    nested: dict[str, int]


class Span(NamedTuple):
    start: dt.date
    length: dt.timedelta


@attrs.define
class Parcel:
    weight: Decimal
    labels: set[str]
    colour: Colour = Colour.RED


class Address(pydantic.BaseModel):
    street: str
    tags: frozenset[str] = frozenset()


class Renamed(pydantic.BaseModel):
    size: int = pydantic.Field(validation_alias="sizeIn", serialization_alias="sizeOut")


class Customer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    name: str = pydantic.Field(alias="customerName")
    since: dt.datetime
    addresses: list[Address] = []
    scores: dict[str, float] = {}


NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 5)  # noqa: DTZ001  naive on purpose
UTC_NOON = NOON.replace(tzinfo=dt.UTC)
EAST_NOON = NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
ID = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")

# Values that every codec keeps for the type beside them.
KEPT: list[tuple[Any, Any]] = [
    (None, None),
    (True, bool),
    (0, int),
    (-(2**63), int),
    (2**64 - 1, int),
    (1.0, float),
    (0.1, float),
    (1e16, float),
    (-1.2345678901234568e17, float),
    (1.7976931348623157e308, float),
    (1e-7, float),
    (1e-300, float),
    (5e-324, float),
    ("", str),
    ('"\\ \x01\x7f\x80 ü 日本 \U0001f600 \\u0000 null -0.0 1e16, ],[ ": ', str),
    (b"", bytes),
    (bytes(range(256)), bytes),
    (bytearray(b"\x00\xff"), bytearray),
    ([b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00"], list[bytes]),
    ([1, [2, [3]]], list[Any]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[int, ...]),
    ({}, dict[str, int]),
    ({"bb": 1, "a": 2, "ü": 3, "\U0001f600": 4, "\uffff": 5, "": 6}, dict[str, int]),
    ({3: "c", 20: "t", -1: "m"}, dict[int, str]),
    ({1.5: 1, 1e16: 2, 0.0: 3}, dict[float, int]),
    ({ID: {NOON.date(): [UTC_NOON]}}, dict[uuid.UUID, dict[dt.date, list[dt.datetime]]]),
    ({Colour.RED: 1}, dict[Colour, int]),
    ({Level.HIGH: 1, Level.LOW: 2}, dict[Level, int]),
    ({b"\xff": Decimal(1)}, dict[bytes, Decimal]),
    ({3, 1, 20}, set[int]),
    (frozenset({"b", "aa"}), frozenset[str]),
    ({Colour.RED, Colour.BLUE}, set[Colour]),
    ({frozenset({"a", "b"}), frozenset({"c"}), frozenset()}, set[frozenset[str]]),
    ({(2, frozenset({1})), (1, frozenset({3, 2}))}, set[tuple[int, frozenset[int]]]),
    ({Point(2, 1.0), Point(1, 5.0)}, set[Point]),
    (NOON, dt.datetime),
    (UTC_NOON, dt.datetime),
    (NOON.replace(year=4), dt.datetime),
    (dt.date(1, 1, 1), dt.date),
    (dt.time(23, 59, 59, 999999), dt.time),
    (dt.time(1, tzinfo=dt.UTC), dt.time),
    (dt.timedelta(days=-3, microseconds=7), dt.timedelta),
    (ID, uuid.UUID),
    (Decimal("1.50"), Decimal),
    (Decimal("-1E+400"), Decimal),
    ({"price": Decimal("0.12345678901234567890"), "n": 1.5}, dict[str, Decimal | float]),
    (Colour.BLUE, Colour),
    (Level.LOW, Level),
    (Mood.CALM, Mood),
    (5, int | str | None),
    ("five", int | str | None),
    (None, Point | None),
    ("b", Literal["a", "b"]),
    (Point(1, 1e16), Point),
    (Square(1.5), Circle | Square),
    ([Circle(1.0), Square(2.0)], list[Circle | Square]),
    (Pair(1, "x"), Pair),
    (Tree("root", {"bb": Tree("b"), "a": Tree("a", parent=Tree("p"))}), Tree),
    (Job(ID, UTC_NOON, [Point(1)], 7), Job),
    (Size(1, height=2), Size),
    ({"ratio": 1e22, "nested": {"zz": 1, "y": 2}}, Options),
    (Span(NOON.date(), dt.timedelta(hours=1)), Span),
    (Parcel(Decimal("0.10"), {"b", "a"}), Parcel),
    (Address(street="Ü", tags=frozenset({"b", "a", "cc"})), Address),
    (
        Customer(
            customerName="x",
            since=UTC_NOON,
            addresses=[Address(street="s")],
            scores={"zz": 1e300, "y": 0.5},
        ),
        Customer,
    ),
    (Renamed.model_validate({"sizeIn": 3}), Renamed),
    ({"models": [Address(street="s")], "none": None}, dict[str, list[Address] | None]),
]

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_integers = st.integers(-(2**63), 2**64 - 1)

builtin_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _integers | _floats | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)

_moments = st.datetimes(timezones=st.sampled_from([None, dt.UTC, EAST_NOON.tzinfo]))
_points = st.builds(Point, _integers, _floats)

typed_values: st.SearchStrategy[tuple[Any, Any]] = st.one_of(
    st.tuples(_floats, st.just(float)),
    st.tuples(st.binary(max_size=20), st.just(bytes)),
    st.tuples(_moments, st.just(dt.datetime)),
    st.tuples(st.timedeltas(), st.just(dt.timedelta)),
    st.tuples(st.decimals(allow_nan=False), st.just(Decimal)),
    st.tuples(st.dictionaries(_text, builtin_values, max_size=4), st.just(dict[str, Any])),
    st.tuples(st.dictionaries(_integers, _floats, max_size=4), st.just(dict[int, float])),
    st.tuples(st.sets(_floats, max_size=4), st.just(set[float])),
    st.tuples(st.frozensets(_text, max_size=4), st.just(frozenset[str])),
    st.tuples(st.sets(st.frozensets(_text, max_size=3), max_size=3), st.just(set[frozenset[str]])),
    st.tuples(st.lists(_points, max_size=3), st.just(list[Point])),
    st.tuples(
        st.builds(Job, st.uuids(), _moments, st.lists(_points, max_size=2), st.integers(0, 9)),
        st.just(Job),
    ),
    st.tuples(
        st.builds(Parcel, st.decimals(allow_nan=False), st.sets(_text), st.sampled_from(Colour)),
        st.just(Parcel),
    ),
    st.tuples(
        st.builds(
            Tree,
            _text,
            st.dictionaries(_text, st.builds(Tree, _text), max_size=3),
            st.none() | st.builds(Tree, _text),
        ),
        st.just(Tree),
    ),
    st.tuples(
        st.fixed_dictionaries(
            {}, optional={"name": _text, "ratio": _floats, "nested": st.just({"zz": 1, "y": 2})}
        ),
        st.just(Options),
    ),
    st.tuples(st.builds(Address, street=_text, tags=st.frozensets(_text)), st.just(Address)),
)


def assert_same(left: Any, right: Any) -> None:
    """Assert that two values cannot be told apart: value, types, signs, order of dicts."""
    assert type(left) is type(right), f"{left!r} is not {right!r}"
    if isinstance(left, dict):
        assert list(left) == list(right), "the keys stand in another order"
        assert_same(list(left), list(right))
        assert_same(list(left.values()), list(right.values()))
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, (set, frozenset)):
        assert left == right
        assert sorted(map(_kind, left)) == sorted(map(_kind, right))
    elif (fields := _fields(left)) is not None:
        assert_same(fields, _fields(right))
    else:
        assert left == right
        assert repr(left) == repr(right)  # tells -0.0 from 0.0


def _kind(item: Any) -> str:
    return repr(type(item)) + (repr(item) if isinstance(item, float) else "")


def _fields(value: Any) -> dict[str, Any] | None:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Parcel):
        return attrs.asdict(value, recurse=False)
    if isinstance(value, pydantic.BaseModel):
        return dict(value)
    return None
