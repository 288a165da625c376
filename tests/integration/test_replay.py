"""First execution equals replay: a step returns what its memo will decode to, always."""

from __future__ import annotations

import uuid
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from flows import Codec, Context, JSONCodec, MsgspecCodec, Registry

if TYPE_CHECKING:
    from tests.running import Runs


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Job(msgspec.Struct):
    scene: str
    points: list[Point]


class Options(TypedDict):
    fast: bool


class Pair(NamedTuple):
    left: int
    right: str


@attrs.define
class Frame:
    number: int


class Result(pydantic.BaseModel):
    took: timedelta


Untyped = namedtuple("Untyped", ["a", "b"])  # noqa: PYI024  as users write it

TYPED: list[tuple[Any, Any]] = [
    (int, 2**62),
    (float, -0.5),
    (str, "größer \u2028 🎈"),
    (bytes, bytes(range(256))),
    (bool, False),
    (type(None), None),
    (tuple[int, str], (1, "two")),
    (set[int], {3, 1, 2}),
    (frozenset[str], frozenset({"a", "b"})),
    (dict[int, str], {2: "b", 1: "a"}),
    (list[Point], [Point(1, 2.5)]),
    (Job, Job("sea", [Point(1)])),
    (Options, {"fast": True}),
    (Pair, Pair(1, "two")),
    (Frame, Frame(7)),
    (Result, Result(took=timedelta(milliseconds=1500))),
    (Color, Color.RED),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (date, date(2026, 1, 2)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (uuid.UUID, uuid.UUID("0190f0b1-2c3d-7e4f-8a5b-6c7d8e9f0a1b")),
    (Decimal, Decimal("0.1000")),
    (int | str, "either"),
    (list[int] | None, None),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
]
CODECS: list[Codec] = [JSONCodec(), MsgspecCodec()]


def name_of(each: Any) -> str:
    # A set would print in another order in each process.
    return str(sorted(each) if isinstance(each, set | frozenset) else each)[:40]


class Replayed:
    """A workflow whose step and event and input and output have one type.

    Attributes:
        seen: what the workflow saw, an entry for each time it was executed.
    """

    def __init__(self, kind: Any, codec: Codec, value: Any) -> None:
        self.seen: list[Any] = []
        self.registry = Registry()

        def step(given: Any) -> Any:
            return value

        def function(wf: Context, inp: Any) -> Any:
            returned = wf.execute("step/v1", step, inp)
            self.seen.append((inp, returned))
            event = wf.wait_for_event("event/v1", "Event", kind)
            self.seen.append(event)
            return returned

        step.__annotations__["return"] = kind
        function.__annotations__ |= {"inp": kind, "return": kind}
        self.handle = self.registry.workflow("demo", codec=codec)(function)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize(("kind", "value"), TYPED, ids=name_of)
def test_an_annotated_value_is_the_same_in_every_place_and_at_every_replay(
    runs: Runs, kind: Any, value: Any, codec: Codec
) -> None:
    replayed = Replayed(kind, codec, value)
    key = runs.execute(replayed.registry, replayed.handle, value)
    runs.publish(key, "Event", value)
    runs.execute_due(replayed.registry)
    assert runs.output(key, kind) == value
    assert replayed.seen == [(value, value), (value, value), value]
    for each in (*replayed.seen[0], *replayed.seen[1], replayed.seen[2], runs.output(key, kind)):
        assert type(each) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        (Point(1), {"x": 1, "y": 0.0}),
        (Job("sea", []), {"scene": "sea", "points": []}),
        (Untyped(1, 2), [1, 2]),
        (Color.RED, "red"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("0.10"), "0.10"),
    ],
)
def test_without_an_annotation_a_step_returns_plain_builtins_from_the_first_time(
    runs: Runs, value: Any, plain: Any
) -> None:
    registry = Registry()
    seen: list[Any] = []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        seen.append(wf.execute("step/v1", lambda: value))
        wf.wait_for_event("go/v1", "Go")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert seen == [plain, plain]
    assert type(seen[0]) is type(seen[1]) is type(plain)


def test_a_value_that_the_workflow_changes_is_the_memos_again_at_replay(runs: Runs) -> None:
    registry, seen, kept = Registry(), [], [1]

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        value = wf.execute("step/v1", lambda: kept)
        seen.append(list(value))
        value.append(2)
        wf.wait_for_event("go/v1", "Go")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert seen == [[1], [1]]
    assert kept == [1]


def test_a_step_that_returns_something_else_than_its_annotation_fails(runs: Runs) -> None:
    registry = Registry()

    def traced() -> list[Point]:
        wrong: Any = [{"x": 1}, {"x": "one"}]
        return wrong  # type: ignore[no-any-return]

    @registry.workflow("demo")
    def demo(wf: Context) -> int:
        return len(wf.execute("trace/v1", traced))

    key = runs.execute(registry, demo)
    assert "codec 'json' cannot decode into list[" in runs.error(key)
    assert "$[1].x" in runs.error(key)
    [(status, output)] = runs.rows("SELECT status, output_json FROM flows.steps")
    assert (status, output) == ("failed", None)


def test_a_class_called_as_a_step_gives_its_instance(runs: Runs) -> None:
    registry, seen = Registry(), []

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        seen.append((wf.execute("point/v1", Point, 3), wf.execute("set/v1", set, [1, 1])))
        wf.wait_for_event("go/v1", "Go")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go")
    runs.execute_due(registry)
    assert seen == [(Point(3), {1}), (Point(3), {1})]


def test_a_run_goes_on_after_its_workflow_has_changed_its_codec(runs: Runs) -> None:
    outputs: list[Any] = []

    def function(wf: Context, job: Job) -> Job:
        outputs.append(wf.execute("step/v1", same, job))
        wf.wait_for_event("go/v1", "Go")
        return wf.execute("step/v2", same, outputs[-1])

    def same(job: Job) -> Job:
        return job

    before, after = Registry(), Registry()
    demo = before.workflow("demo", codec=MsgspecCodec())(function)
    after.workflow("demo", codec=JSONCodec())(function)
    job = Job("sea", [Point(1, 2.0)])
    key = runs.execute(before, demo, job)
    runs.publish(key, "Go")
    runs.execute_due(after)
    assert outputs == [job, job]
    assert runs.output(key, Job) == job
    codecs = runs.rows("SELECT step_key, codec FROM flows.steps ORDER BY step_key")
    assert codecs == [("step/v1", "msgpack"), ("step/v2", None)]
    assert runs.rows("SELECT codec, output_codec FROM flows.runs") == [("msgpack", None)]
