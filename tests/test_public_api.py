"""The names that users import: complete, described, cheap to import, and errors that travel."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest

import flows
from flows import errors

NAMES = {
    "CITUS_SCHEMA_SQL",
    "Client",
    "Codec",
    "Context",
    "CronSchedule",
    "DBConfig",
    "DEFAULT_SCHEMA",
    "JSONCodec",
    "MsgspecCodec",
    "OrjsonCodec",
    "Registry",
    "RetryPolicy",
    "RunID",
    "RunKey",
    "RunRetryPolicy",
    "RunStatus",
    "SCHEMA_SQL",
    "Schedule",
    "Worker",
    "citus_schema_sql_for",
    "every",
    "exponential_backoff",
    "parse_cron",
    "schema_sql_for",
    "shard_values_for_workflow",
}

# What the design does not list and users need nevertheless.
BESIDES = {
    "AsyncClient",  # Client for asyncio
    "AsyncConnectedClient",  # what AsyncClient.connect returns, for annotations
    "ConnectedClient",  # what Client.connect returns, for annotations
    "EverySchedule",  # the type of every(), for annotations
    "parse_schedule",  # what a schedule of one's own is read back with
    "Workflow",  # the type of handles, for annotations
    "codec_named",  # for a codec of one's own
    "register_codec",  # likewise
    "check_version",  # what a worker does at its start, for applications that look first
    "migrate",  # what the command does, for applications that bring their own
}

# What only the command line, a supervisor or an optional payload type needs.
KEPT_OUT = {"attr", "attrs", "click", "pydantic", "rich", "flows.cli", "flows.supervisor"}

ERRORS = [getattr(errors, name) for name in errors.__all__]
FLOWS_ERRORS = [error for error in ERRORS if issubclass(error, errors.FlowsError)]

ARGUMENTS: dict[type[Exception], tuple[Any, ...]] = {
    errors.DecodeError: ("json", "Job", "Expected `int` at $.n"),
    errors.DriftError: ("demo_0:1", "trace/v1", "00ff", "ff00", "step"),
    errors.EncodeError: ("msgpack", "$.jobs[3].name", "a lone surrogate"),
    errors.PayloadSizeError: (1025, 1024),
    errors.RunStateError: ("demo_0:1", "failed", "be cancelled", "ValueError: no"),
    errors.StepPanicError: (SystemExit(3), "Traceback …"),
    errors.StepTimeoutError: ("trace/v1", 2.0, 2.5),
    errors.UnknownRunError: ("demo_0:1",),
    errors.UnknownWorkflowError: ("demo", ("census", "render")),
    errors.WorkflowPanicError: (KeyboardInterrupt(), "Traceback …"),
}


def public_objects() -> dict[str, Any]:
    """Return what is exported and can have a docstring."""
    exported = {name: getattr(flows, name) for name in flows.__all__}
    return {name: value for name, value in exported.items() if not isinstance(value, str)}


def is_described(value: Any) -> bool:
    doc = value.__doc__ or ""
    # A dataclass or a named tuple without a docstring gets its signature for one.
    return bool(doc) and not doc.startswith(f"{getattr(value, '__name__', '')}(")


def test_the_exported_names_are_those_of_the_design() -> None:
    wanted = NAMES | BESIDES | {error.__name__ for error in FLOWS_ERRORS}
    assert set(flows.__all__) == wanted
    assert len(flows.__all__) == len(wanted)


def test_nothing_else_is_public_but_the_modules() -> None:
    # Each is imported when it is used.
    assert set(public_objects()) <= set(dir(flows))
    assert flows.errors is errors
    names = {name for name, value in vars(flows).items() if not inspect.ismodule(value)}
    assert {name for name in names if not name.startswith("_")} - {"annotations"} == set(
        flows.__all__
    )


def test_every_exported_name_is_described() -> None:
    exported = public_objects()
    # The parts of a type made by NewType are its own; its name and supertype say what it is.
    del exported["RunID"]
    assert [name for name, value in exported.items() if not is_described(value)] == []


def test_every_public_method_is_described() -> None:
    silent = [
        f"{name}.{member}"
        for name, cls in public_objects().items()
        if inspect.isclass(cls)
        for member, value in vars(cls).items()
        if not member.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property))
        and not is_described(value)
    ]
    assert silent == []


def test_importing_flows_loads_neither_the_command_line_nor_optional_packages() -> None:
    program = "import sys, flows; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & KEPT_OUT == set()


def test_the_list_of_commands_is_told_without_what_commands_need() -> None:
    program = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & {"psycopg", "msgspec", "rich", "asyncio", "flows.worker"} == set()


def test_every_error_stands_in_the_tree_of_one_file() -> None:
    pending, strangers = [errors.FlowsError], []
    while pending:
        children = pending.pop().__subclasses__()
        pending += children
        strangers += [child for child in children if child.__module__ != "flows.errors"]
    # Tests may derive errors of their own.
    assert [error for error in strangers if error.__module__.startswith("flows.")] == []


@pytest.mark.parametrize("error", FLOWS_ERRORS)
def test_an_error_survives_pickling(error: type[Exception]) -> None:
    original = error(*ARGUMENTS.get(error, ("why it failed",)))
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is error
    assert str(copy) == str(original)
    assert vars(copy).keys() == vars(original).keys()


def test_the_parts_of_an_error_survive_pickling() -> None:
    for error, arguments in ARGUMENTS.items():
        if issubclass(error, errors.StepPanicError | errors.WorkflowPanicError):
            continue
        original = error(*arguments)
        assert vars(pickle.loads(pickle.dumps(original))) == vars(original)
        assert tuple(vars(original).values()) == arguments


@pytest.mark.parametrize("error", [errors.StepPanicError, errors.WorkflowPanicError])
def test_a_panic_survives_pickling_even_if_its_value_does_not(error: type[Exception]) -> None:
    original = error(SystemExit(threading.Lock()), "Traceback …")
    copy = pickle.loads(pickle.dumps(original))
    assert str(copy) == str(original)
    assert vars(copy)["stack"] == "Traceback …"
