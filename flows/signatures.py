"""What the annotations of workflows and steps say."""

from __future__ import annotations

import inspect
import re
import typing
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from flows.errors import ConfigError

__all__ = ["WorkflowTypes", "step_type", "workflow_types"]

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class WorkflowTypes(NamedTuple):
    """Annotated types of a workflow function; `Any` where it has no annotation.

    Attributes:
        input: of the argument after the context.
        output: of what it returns.
        takes_input: whether there is such an argument.
    """

    input: Any
    output: Any
    takes_input: bool


def workflow_types(name: str, function: Any) -> WorkflowTypes:
    """Read the types of a workflow function `(wf, input) -> output` or `(wf) -> output`.

    Raises:
        ConfigError: it cannot be called so, is a coroutine or a generator function, or an
            annotation does not resolve.
    """
    if not callable(function):
        raise ConfigError(f"workflow {name!r}: {function!r} cannot be called")
    target = _plain_function(function)
    if _is_coroutine_function(target):
        raise ConfigError(f"workflow {name!r}: async functions are not supported; use def")
    if inspect.isgeneratorfunction(target):
        raise ConfigError(f"workflow {name!r}: a generator would never be begun; use no yield")
    parameters = _positional(name, function)
    takes_input = len(parameters) > 1
    hints = _resolve(f"workflow {name!r}", target, [*parameters[1:2], "return"])
    input_type = hints.get(parameters[1], Any) if takes_input else Any
    return WorkflowTypes(input_type, hints.get("return", Any), takes_input)


def step_type(step: Any) -> Any:
    """Return the annotated type of what a step returns, `Any` where it says nothing.

    A class called as a step returns its instances.

    Raises:
        ConfigError: it is a coroutine function, or its annotation does not resolve.
    """
    target = _plain_function(step)
    if isinstance(target, type):
        return target
    code = getattr(target, "__code__", None)
    if code is not None and code.co_flags & _ASYNC:
        raise ConfigError(f"step {_name(step)}: async functions are not supported; use def")
    annotations = getattr(target, "__annotations__", None)
    if not annotations or "return" not in annotations:
        return Any
    if type(annotations["return"]) is type:
        return annotations["return"]
    return _return_type(target)


def _is_coroutine_function(target: Any) -> bool:
    """Tell whether calling `target` gives a coroutine or an asynchronous generator."""
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


class _Scope:
    """The globals of a module, told apart from others by identity."""

    __slots__ = ("names",)

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Scope) and self.names is other.names

    def __hash__(self) -> int:
        return id(self.names)


def _return_type(target: Any) -> Any:
    """Resolve what a step is annotated to return.

    Steps are mostly functions within the workflow's, made anew by each attempt: what is remembered
    is the annotation and its module. The function would keep all alive that it has captured.
    """
    written = inspect.unwrap(target) if hasattr(target, "__wrapped__") else target
    if isinstance(written, FunctionType):
        annotation = written.__annotations__.get("return", Any)
        if _is_global(annotation, written.__code__.co_freevars):
            try:
                return _type_of(annotation, _Scope(written.__globals__))
            except NameError:
                pass  # told below, with the name of the step
    return _resolve(f"step {_name(target)}", target, ["return"]).get("return", Any)


def _is_global(annotation: Any, captured: tuple[str, ...]) -> bool:
    """Tell whether an annotation means the same to all functions of its module."""
    if isinstance(annotation, str):
        return not captured or _words(annotation).isdisjoint(captured)
    try:
        hash(annotation)
    except TypeError:
        return False
    return not captured


@lru_cache(maxsize=4096)
def _words(annotation: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", annotation))


@lru_cache(maxsize=4096)
def _type_of(annotation: Any, scope: _Scope) -> Any:
    return _hints({"return": annotation}, scope.names, {})["return"]


def _plain_function(function: Any) -> Any:
    if isinstance(function, FunctionType):
        return function
    if isinstance(function, MethodType):
        return function.__func__
    partial_of = getattr(function, "func", None)
    if partial_of is not None:
        return _plain_function(partial_of)
    if isinstance(function, type) or inspect.isbuiltin(function):
        return function
    call = getattr(type(function), "__call__", function)  # noqa: B004  not a test
    return call if isinstance(call, FunctionType) else function


def _positional(name: str, function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"workflow {name!r}: its signature cannot be read: {error}") from error
    positional = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    # Both arguments are given by position.
    if not positional or len(required) > 2 or not set(required) <= set(positional[:2]):
        raise ConfigError(
            f"workflow {name!r} must take the context and one input: (wf, input);"
            f" it takes ({', '.join(required)})"
        )
    return positional


def _resolve(what: str, target: Any, names: list[str]) -> dict[str, Any]:
    """Resolve only the annotations asked for: others may name what is imported for typing."""
    if isinstance(target, type):
        return {"return": Any}
    # A wrapper made with functools.wraps carries the annotations of what it wraps, and those
    # resolve where that was written.
    target = inspect.unwrap(target)
    annotations = getattr(target, "__annotations__", {})
    wanted = {name: annotations[name] for name in names if name in annotations}
    try:
        return _hints(wanted, getattr(target, "__globals__", None), _enclosing(target))
    except NameError as error:
        raise ConfigError(
            f"{what}: annotation {error.name!r} does not resolve; define the type at module"
            " level and import it at run time, not only for type checking"
        ) from error


def _hints(
    annotations: dict[str, Any], names: dict[str, Any] | None, enclosing: dict[str, Any]
) -> dict[str, Any]:
    holder = type("annotations", (), {"__annotations__": annotations})
    return typing.get_type_hints(holder, globalns=names, localns=enclosing, include_extras=True)


def _enclosing(target: Any) -> dict[str, Any]:
    closure = getattr(target, "__closure__", None) or ()
    names = getattr(getattr(target, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, closure, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # the cell is filled later
            continue
    return found


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
