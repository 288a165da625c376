"""Watching the steps of workflows: each call of a step's function goes through the watcher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flows.registry import Registry
from flows.retry import RetryPolicy
from flows.steps import NO_INPUT

if TYPE_CHECKING:
    from flows.context import Context

__all__ = ["Watcher", "settle", "watched"]

Watcher = Callable[["Context", str, Callable[[], Any]], Any]
"""Given a step's context, key and call, which it makes and whose value it returns."""

_ONCE = RetryPolicy()


class _WatchedStep(partial[Any]):
    """A step's function; a partial, so that its annotations and its identity are found."""

    around: Callable[[Callable[[], Any]], Any]

    def __call__(self, /, *args: Any, **named: Any) -> Any:
        return self.around(lambda: super(_WatchedStep, self).__call__(*args, **named))


def watched(registry: Registry, watcher: Watcher) -> Registry:
    """Return a registry of the same workflows, whose steps are watched.

    A step that answers from its memo is not called. What `backoff` would wait between the tries of
    a step is left out: a test has no time for it.
    """
    copy = Registry()
    for workflow in registry:
        copy.add(replace(workflow, function=_watched(workflow.function, watcher)))
    return copy


def settle(wf: Context) -> None:
    """Wait until the memos of earlier steps are committed, but for those that go with `wf.tx`."""
    wf._engine.committer.settle(wf._journal.record)  # noqa: SLF001  nobody else needs to know


def _watched(function: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    def run(wf: Context, *args: Any) -> Any:
        execute = wf.execute

        def execute_watched(
            step_key: str,
            step: Callable[..., Any],
            /,
            input: Any = NO_INPUT,  # noqa: A002
            retry: RetryPolicy = _ONCE,
        ) -> Any:
            call = _WatchedStep(step)
            call.around = partial(watcher, wf, step_key)
            return execute(step_key, call, input, replace(retry, backoff=None))

        # On this context alone: it stays the engine's own for whoever looks at it.
        vars(wf).update(execute=execute_watched, durable_execute=execute_watched)
        return function(wf, *args)

    return run
