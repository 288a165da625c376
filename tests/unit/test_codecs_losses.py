"""Pydantic models that pydantic itself would change in silence are refused."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pydantic
import pytest

from flows.codecs import Codec
from flows.errors import EncodeError
from tests.codec_conformance import CODECS, codec_id

REPEATED_HOUR = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


class Draft(pydantic.BaseModel):
    note: str | None = pydantic.Field(default=None, exclude=True)


class Shape(pydantic.BaseModel):
    name: str


class Circle(Shape):
    radius: float


class Drawing(pydantic.BaseModel):
    shapes: list[Shape] = []
    by_name: dict[str, Shape] = {}


class Shouting(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def shout(cls, text: str) -> str:
        return text + "!"


class Needy(pydantic.BaseModel):
    token: str = pydantic.Field(exclude=True)


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Login(password=pydantic.SecretStr("s")), "password is SecretStr("),
        (Draft(note="x"), "note is 'x' and would come back as None"),
        (Drawing(shapes=[Shape(name="a"), Circle(name="b", radius=1)]), "shapes[1] is Circle("),
        (Drawing(by_name={"b": Circle(name="b", radius=1)}), "by_name['b'] is Circle("),
        (Shouting(text="a"), "text is 'a!' and would come back as 'a!!'"),
        (Needy(token="t"), "Needy: Field required - at `token`"),
    ],
)
def test_a_model_that_would_come_back_changed_is_refused(
    codec: Codec, model: pydantic.BaseModel, reason: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode({"jobs": [model]})
    assert caught.value.path == "$.jobs[0]"
    assert caught.value.reason.startswith(reason)


class Opaque:
    """Has no equality of its own."""


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)

    at: dt.datetime = REPEATED_HOUR
    any: Any = (1, REPEATED_HOUR.date())
    price: Decimal = pydantic.Field(default=Decimal("NaN"), allow_inf_nan=True)
    note: str | None = pydantic.Field(default=None, exclude=True)
    _cache: int = 0


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
def test_a_model_is_kept_although_python_calls_what_came_back_unequal(codec: Codec) -> None:
    model = Loose.model_validate({"more": {"a": 1}})
    model._cache = 7
    kept = codec.decode(codec.encode(model), Loose)
    assert kept.at.timestamp() == REPEATED_HOUR.timestamp()
    assert kept.any == [1, "2024-10-27"]
    assert kept.model_extra == {"more": {"a": 1}}
    assert codec.encode(kept) == codec.encode(model)


@pytest.mark.parametrize("codec", CODECS, ids=codec_id)
def test_objects_without_equality_in_a_model_are_left_to_its_own_serializer(codec: Codec) -> None:
    class Holder(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        held: Opaque

        @pydantic.field_serializer("held")
        def write(self, held: Opaque) -> str:
            return "opaque"

        @pydantic.field_validator("held", mode="before")
        @classmethod
        def read(cls, held: Any) -> Any:
            return Opaque() if held == "opaque" else held

    assert isinstance(codec.decode(codec.encode(Holder(held=Opaque())), Holder).held, Opaque)
