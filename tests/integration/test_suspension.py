"""Suspensions that user code swallows: they hold all the same."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flows import Context, Registry, RunRetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Runs


def wait(wf: Context) -> Any:
    return wf.wait_for_event("go/v1", "Go")


def with_except_exception(wf: Context) -> Any:
    try:
        return wait(wf)
    except Exception:  # noqa: BLE001  as users write it
        return "swallowed"


def with_bare_except(wf: Context) -> Any:
    try:
        return wait(wf)
    except:  # noqa: E722  as users write it
        return "swallowed"


def with_except_base_exception(wf: Context) -> Any:
    with contextlib.suppress(BaseException):
        return wait(wf)
    return "swallowed"


def with_return_in_finally(wf: Context) -> Any:
    value = "swallowed"
    try:
        value = wait(wf)
    finally:
        return value  # noqa: B012  as users write it


def with_another_error(wf: Context) -> Any:
    try:
        return wait(wf)
    except BaseException as error:
        message = "instead"
        raise ValueError(message) from error


def with_an_exit(wf: Context) -> Any:
    try:
        return wait(wf)
    except BaseException as error:
        raise SystemExit(1) from error


def with_another_primitive(wf: Context) -> Any:
    try:
        return wait(wf)
    except BaseException:  # noqa: BLE001  as users write it
        wf.execute("after/v1", lambda: 1)
        return "swallowed"


def with_a_business_write(wf: Context) -> Any:
    try:
        return wait(wf)
    except BaseException:  # noqa: BLE001  as users write it
        wf.tx.execute("CREATE TABLE swallowed ()")
        return "swallowed"


SWALLOWERS = [
    with_except_exception,
    with_bare_except,
    with_except_base_exception,
    with_return_in_finally,
    with_another_error,
    with_an_exit,
    with_another_primitive,
    with_a_business_write,
]


@pytest.mark.parametrize("swallow", SWALLOWERS, ids=lambda function: function.__name__)
def test_a_swallowed_wait_is_waited_for_all_the_same(
    runs: Runs, swallow: Callable[[Context], Any]
) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        return swallow(wf)

    key = runs.execute(registry, demo)
    status = runs.status(key)
    assert (status.status, status.error, status.attempts) == ("waiting_event", None, 0)
    assert runs.rows("SELECT count(*) FROM flows.steps") == [(0,)]
    assert runs.rows("SELECT to_regclass('swallowed')") == [(None,)]
    runs.publish(key, "Go", "published")
    runs.execute_due(registry)
    assert runs.output(key) == "published"


def test_a_swallowed_sleep_is_slept(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo", run_retry=RunRetryPolicy(max_attempts=2))
    def demo(wf: Context) -> str:
        with contextlib.suppress(BaseException):
            wf.sleep("cooldown/v1", timedelta(hours=1))
        return "slept"

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "sleeping"
    assert runs.status(key).attempts == 0


def test_the_first_of_several_suspensions_counts(runs: Runs) -> None:
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> None:
        with contextlib.suppress(BaseException):
            wait(wf)
        wf.sleep("cooldown/v1", timedelta(hours=1))

    key = runs.execute(registry, demo)
    assert runs.status(key).status == "waiting_event"
    assert runs.rows("SELECT wait_key FROM flows.waits") == [("go/v1",)]


def test_cleaning_up_on_the_way_out_is_allowed(runs: Runs) -> None:
    cleaned: list[str] = []
    registry = Registry()

    @registry.workflow("demo")
    def demo(wf: Context) -> Any:
        try:
            return wait(wf)
        finally:
            cleaned.append("up")

    key = runs.execute(registry, demo)
    runs.publish(key, "Go", 7)
    runs.execute_due(registry)
    assert runs.output(key) == 7
    assert cleaned == ["up", "up"]
