"""The registry: what can be registered, and what is refused at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flows import Context, JSONCodec, MsgspecCodec, Registry, RunRetryPolicy, Workflow
from flows.clock import LONGEST
from flows.errors import ConfigError, UnknownWorkflowError


def double(wf: Context, n: int) -> int:
    return 2 * n


class Demo:
    name = "demo"

    def run(self, wf: Context, n: int) -> str:
        return str(n)


def test_a_decorated_function_becomes_a_handle_with_its_options() -> None:
    registry = Registry()
    policy = RunRetryPolicy(max_attempts=3)
    handle = registry.workflow(
        "double",
        codec=MsgspecCodec(),
        concurrency=4,
        processes=2,
        run_retry=policy,
        commit="step",
        max_runs=1000,
        max_age=timedelta(hours=1),
        max_rss=2**30,
        hang_timeout=timedelta(minutes=5),
    )(double)
    assert isinstance(handle, Workflow)
    assert registry.get("double") is handle
    assert (handle.name, handle.concurrency, handle.processes) == ("double", 4, 2)
    assert (handle.codec, handle.run_retry, handle.commit) == (MsgspecCodec(), policy, "step")
    assert (handle.max_runs, handle.max_rss) == (1000, 2**30)
    assert (handle.max_age, handle.hang_timeout) == (timedelta(hours=1), timedelta(minutes=5))
    assert handle.types == (int, int, True)


def test_a_workflow_is_one_executor_one_process_json_and_one_attempt_by_default() -> None:
    handle = Registry().workflow("double")(double)
    assert (handle.concurrency, handle.processes, handle.commit) == (1, 1, "attempt")
    assert handle.codec == JSONCodec()
    assert handle.run_retry == RunRetryPolicy()


def test_an_object_with_a_name_and_run_is_a_workflow_too() -> None:
    handle = Registry().register(Demo(), concurrency=2)
    assert (handle.name, handle.concurrency) == ("demo", 2)
    assert handle.types == (int, str, True)


def test_a_handle_can_be_called_as_the_function_it_is() -> None:
    wf: Any = None
    assert Registry().workflow("double")(double)(wf, 21) == 42
    assert Registry().register(Demo())(wf, 5) == "5"


def test_a_registry_lists_its_workflows_in_order() -> None:
    registry = Registry()
    handles = [registry.workflow(name)(double) for name in ("b", "a")]
    assert registry.names() == ("b", "a")
    assert list(registry) == list(registry.workflows()) == handles
    assert len(registry) == 2
    assert "a" in registry
    assert "c" not in registry


def test_a_name_can_be_taken_once_only() -> None:
    registry = Registry()
    first = registry.workflow("demo")(double)
    with pytest.raises(ConfigError, match="'demo' is registered already"):
        registry.register(Demo())
    assert registry.get("demo") is first


@pytest.mark.parametrize("name", ["", " ", "a\0", None, "x" * 1001])
def test_a_name_that_cannot_work_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="name"):
        Registry().workflow(name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "2"}, "concurrency"),
        ({"processes": 0}, "processes"),
        ({"processes": True}, "processes"),
        ({"max_runs": 0}, "max_runs"),
        ({"pinned": 1}, "pinned"),
        ({"max_rss": 1.5}, "max_rss"),
        ({"max_age": 60}, "max_age"),
        ({"retention": 60}, "retention"),
        ({"retention": timedelta(0)}, "retention"),
        ({"max_age": timedelta(0)}, "max_age"),
        ({"hang_timeout": 60.0}, "hang_timeout"),
        ({"hang_timeout": timedelta(seconds=-1)}, "hang_timeout"),
        ({"hang_timeout": timedelta.max}, "hang_timeout"),
        ({"max_age": timedelta.max}, "max_age"),
        ({"retention": timedelta.max}, "retention"),
        ({"run_timeout": timedelta.max}, "run_timeout"),
        ({"run_timeout": LONGEST + timedelta(microseconds=1)}, "run_timeout"),
        ({"codec": "json"}, "codec"),
        ({"codec": MsgspecCodec}, "codec"),
        ({"run_retry": 3}, "run_retry"),
        ({"commit": "never"}, "commit"),
    ],
)
def test_an_option_that_cannot_work_is_refused_with_the_workflow(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"'double'.*{reason}"):
        Registry().workflow("double", **options)


@pytest.mark.parametrize("thing", [object(), double, type("NoRun", (), {"name": "x"})()])
def test_an_object_that_is_no_workflow_is_refused(thing: Any) -> None:
    with pytest.raises(ConfigError, match="workflow"):
        Registry().register(thing)


def test_a_function_that_cannot_be_a_workflow_is_not_registered() -> None:
    registry = Registry()
    decorate: Any = registry.workflow("later")

    async def later(wf: Context, n: int) -> int:
        return n

    with pytest.raises(ConfigError, match="async"):
        decorate(later)
    assert len(registry) == 0


def test_an_unknown_workflow_is_named_with_those_that_are_known() -> None:
    registry = Registry()
    registry.workflow("double")(double)
    with pytest.raises(UnknownWorkflowError, match=r"no workflow named 'render'.*double"):
        registry.get("render")


def test_a_part_of_a_registry_has_the_workflows_named() -> None:
    registry = Registry()
    for name in ("a", "b", "c"):
        registry.workflow(name)(double)
    assert registry.only(["c", "a", "c"]).names() == ("c", "a")
    with pytest.raises(UnknownWorkflowError):
        registry.only(["a", "d"])


def test_an_empty_registry_is_refused_where_it_is_to_be_run() -> None:
    registry = Registry()
    with pytest.raises(ConfigError, match="empty"):
        registry.check_not_empty()
    registry.workflow("double")(double)
    registry.check_not_empty()
