"""The user's application, imported in a template or in a fresh interpreter."""

from __future__ import annotations

import importlib
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows import clock
from flows.errors import ConfigError
from flows.supervisor import preparation, report, working
from flows.supervisor.jobs import Inspect, Prepare, Report, Work, WorkflowPlan

if TYPE_CHECKING:
    from types import ModuleType

    from flows.registry import Registry
    from flows.supervisor.child import ChildEnd
    from flows.supervisor.jobs import Order, Target

__all__ = [
    "RegisteredApplication",
    "check_target",
    "load",
    "load_registry",
    "threads_left_by_import",
]


@dataclass(frozen=True, slots=True)
class RegisteredApplication:
    """An application with a registry.

    Attributes:
        registry: the workflows to run.
    """

    registry: Registry

    @property
    def workflows(self) -> tuple[WorkflowPlan, ...]:
        """The workflows to run."""
        return tuple(
            WorkflowPlan(
                each.name,
                each.processes,
                each.concurrency,
                each.max_runs,
                None if each.max_age is None else clock.seconds(each.max_age),
                each.max_rss,
                None if each.hang_timeout is None else clock.seconds(each.hang_timeout),
                each.max_crashes,
                None if each.retention is None else clock.seconds(each.retention),
                each.pinned,
            )
            for each in self.registry
        )

    def run(self, order: Order, end: ChildEnd) -> int:
        """Do a job, and return the exit code of its process."""
        match order.job:
            case Work():
                return working.work(self.registry, order, order.job, end)
            case Prepare():
                return preparation.prepare(self.registry, order.settings, order.job, end)
            case Report():
                return report.print_outputs(self.registry, order.settings, order.job, end)
            case Inspect():
                raise ValueError("nothing is run to inspect")


def load(target: Target) -> RegisteredApplication:
    """Import an application, and what its children need to run it.

    Raises:
        ConfigError: it cannot be imported, has no registry there, or not the workflows named.
    """
    registry = load_registry(target.app)
    chosen = registry.only(target.only) if target.only else registry
    for name in target.needed:
        if name not in chosen:
            known = ", ".join(chosen.names())
            raise ConfigError(f"--begin {name}: no such workflow is run (but {known})")
    return RegisteredApplication(chosen)


def load_registry(target: str) -> Registry:
    """Import `module:attribute` and return the registry it names.

    The current folder is on the path, as it is for `python -m`.

    Raises:
        ConfigError: it does not parse, cannot be imported, or is no registry with workflows in it.
    """
    module_name, attribute = check_target(target)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _import(module_name, folder)
    found = _attribute(module, attribute, target)
    from flows.registry import Registry  # noqa: PLC0415  loaded with the application at the latest

    if not isinstance(found, Registry):
        raise ConfigError(f"{target} is of type {type(found).__name__}, not a flows.Registry")
    if not len(found):
        raise ConfigError(f"{target} is an empty registry: no workflow is registered in it")
    return found


def check_target(target: str) -> tuple[str, str]:
    """Return the module and the attribute that `module:attribute` names.

    Raises:
        ConfigError: it does not parse.
    """
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigError(f"{target!r} does not name a registry; expected module:attribute")
    return module_name, attribute


def threads_left_by_import() -> list[str]:
    """Return the names of threads besides the main one: a fork would not carry them over."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.ident != _main_ident() and not thread.name.startswith(_BEGUN_ANEW)
    ]


_BEGUN_ANEW = ("OtelBatch", "OtelPeriodic")
"""Threads of OpenTelemetry's SDK, which starts them again in a forked process."""


def _main_ident() -> int | None:
    return threading.main_thread().ident


def _import(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"no module named {error.name!r} in {folder} or on sys.path"
            ) from error
        raise ConfigError(_import_failure(name, error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_import_failure(name, error)) from error


def _import_failure(name: str, error: BaseException) -> str:
    """Name the error and the last line of the application that led to it."""
    message = next(iter(str(error).splitlines()), "")
    text = f"importing {name} failed: {type(error).__name__}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or len(own) < 2:
        return text
    return f"{text}\n  at {own[-1].filename}, line {own[-1].lineno}"


def _attribute(module: ModuleType, path: str, target: str) -> object:
    found: object = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            registries = _registries_in(module)
            hint = f"; it has {', '.join(registries)}" if registries else ""
            raise ConfigError(f"{target}: no attribute {name!r}{hint}") from error
    return found


def _registries_in(module: ModuleType) -> list[str]:
    from flows.registry import Registry  # noqa: PLC0415  only to help with a mistake

    return [
        f"{module.__name__}:{name}"
        for name, value in vars(module).items()
        if isinstance(value, Registry)
    ]
