"""Annotations: which types workflows and steps have, and which functions cannot be either."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from flows.errors import ConfigError
from flows.signatures import step_type, workflow_types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from decimal import Decimal

    from flows import Context


@dataclass
class Job:
    n: int


class Trace:
    def __call__(self, job: Job) -> list[Job]:
        return [job]

    def method(self, job: Job) -> Job:
        return job

    async def later(self, job: Job) -> Job:
        return job


def traced(job: Job) -> list[Job]:
    return [job]


def annotated(job: Job) -> Annotated[int, "frames"]:
    return job.n


def plain(job):  # type: ignore[no-untyped-def]
    return job


def elsewhere() -> Callable[[Any], Any]:
    """Return a decorator as another module would define it: our names mean nothing there."""
    names: dict[str, Any] = {}
    source = (
        "import functools\n"
        "def timed(function):\n"
        "    @functools.wraps(function)\n"
        "    def timing(*args, **options):\n"
        "        return function(*args, **options)\n"
        "    return timing\n"
    )
    exec(source, names)
    decorator: Callable[[Any], Any] = names["timed"]
    return decorator


def test_a_workflow_has_the_types_of_its_annotations() -> None:
    def render(wf: Context, job: Job) -> list[Job]:
        return [job]

    assert workflow_types("render", render) == (Job, list[Job], True)


def test_a_workflow_may_say_nothing() -> None:
    assert workflow_types("render", lambda wf, job: job) == (Any, Any, True)


def test_a_workflow_may_take_no_input() -> None:
    def nightly(wf: Context) -> None: ...

    assert workflow_types("nightly", nightly) == (Any, type(None), False)


def test_annotations_of_other_parameters_need_not_resolve() -> None:
    def render(wf: Context, job: Job, debug: Decimal | None = None) -> int:
        return 0

    assert workflow_types("render", render) == (Job, int, True)


def test_a_type_of_the_enclosing_function_resolves_where_it_is_used_there() -> None:
    @dataclass
    class Local:
        n: int

    def render(wf: Context, job: Local) -> int:
        return Local(job.n).n

    assert workflow_types("render", render).input is Local


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (traced, list[Job]),
        (annotated, Annotated[int, "frames"]),
        (plain, Any),
        (lambda job: job, Any),
        (Trace(), list[Job]),
        (Trace().method, Job),
        (functools.partial(traced), list[Job]),
        (Job, Job),
        (int, int),
        (len, Any),
    ],
)
def test_a_step_returns_what_its_annotation_says(step: Any, expected: Any) -> None:
    assert step_type(step) == expected


def test_a_decorated_function_keeps_its_types() -> None:
    timed = elsewhere()

    def render(wf: Context, job: Job) -> list[Job]:
        return [job]

    assert workflow_types("render", timed(render)) == (Job, list[Job], True)
    assert step_type(timed(traced)) == list[Job]


def test_a_step_is_not_kept_alive_with_what_it_has_captured() -> None:
    def ask() -> weakref.ref[Job]:
        job = Job(1)

        def captures() -> Job:
            return job

        def defaults(job: Job = job) -> list[Job]:
            return [job]

        assert [step_type(captures), step_type(defaults)] == [Job, list[Job]]
        return weakref.ref(job)

    left = ask()
    gc.collect()
    assert left() is None


def test_an_annotation_means_what_it_names_where_it_was_written() -> None:
    def steps_returning(local: type) -> tuple[Any, Any]:
        def step() -> local:  # type: ignore[valid-type]
            return local

        def steps() -> list[local]:  # type: ignore[valid-type]
            return [local]

        return step_type(step), step_type(steps)

    for local in (int, Job, int):
        assert steps_returning(local) == (local, types.GenericAlias(list, (local,)))


def test_a_name_means_what_it_does_in_the_module_of_the_step() -> None:
    source = "class Made: ...\ndef step() -> 'Made': ...\ndef steps() -> list['Made']: ...\n"
    modules: list[dict[str, Any]] = [{}, {}]
    for module in modules:
        exec(source, module)
    for module in modules:
        made = module["Made"]
        assert step_type(module["step"]) is made
        assert step_type(module["steps"]) == types.GenericAlias(list, (made,))


def test_an_annotation_may_be_of_any_kind() -> None:
    def evaluated(annotation: Any) -> Any:
        def step() -> None: ...

        step.__annotations__["return"] = annotation
        return step

    unhashable = Annotated[int, []]
    for annotation in (Job, list[Job], unhashable, Job | None):
        assert step_type(evaluated(annotation)) == annotation
    assert step_type(evaluated(None)) is type(None)


def test_an_annotation_that_does_not_resolve_is_named() -> None:
    def render(wf: Context, job: Decimal) -> int:
        return 0

    with pytest.raises(ConfigError, match=r"workflow 'render': annotation 'Decimal'.*run time"):
        workflow_types("render", render)

    def step(job: Job) -> Decimal:
        raise NotImplementedError

    with pytest.raises(ConfigError, match=r"step .*step: annotation 'Decimal'"):
        step_type(step)


async def later(wf: Context, job: Job) -> int:
    return 0


async def parts(wf: Context, job: Job) -> AsyncIterator[int]:
    yield 0


@pytest.mark.parametrize("function", [later, parts, Trace().later, functools.partial(later)])
def test_an_async_workflow_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"workflow 'demo': async .*use def"):
        workflow_types("demo", function)


def test_a_generator_is_no_workflow() -> None:
    def counting(wf: Context, job: Job) -> Iterator[int]:
        yield 1

    for function in (counting, functools.partial(counting)):
        with pytest.raises(ConfigError, match=r"workflow 'demo': a generator .* use no yield"):
            workflow_types("demo", function)


@pytest.mark.parametrize("step", [later, parts, Trace().later, functools.partial(later)])
def test_an_async_step_is_refused(step: Any) -> None:
    with pytest.raises(ConfigError, match=r"step .*: async .*use def"):
        step_type(step)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda wf, job, other: None,
        lambda wf, *, job: None,
        lambda *, wf: None,
    ],
)
def test_a_function_that_takes_something_else_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"\(wf, input\)"):
        workflow_types("demo", function)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        workflow_types("demo", 5)
