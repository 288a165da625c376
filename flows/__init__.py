"""Durable workflows on Postgres.

A workflow is an ordinary function; each step's result is memoized in Postgres, so a run survives
crashes, deploys, sleeps of days and waits for people. Business rows can be written in the same
transaction as the engine's own records.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from flows.async_client import AsyncClient
    from flows.async_connected import AsyncConnectedClient
    from flows.client import Client, ConnectedClient
    from flows.codecs import (
        Codec,
        JSONCodec,
        MsgspecCodec,
        OrjsonCodec,
        codec_named,
        register_codec,
    )
    from flows.config import DEFAULT_SCHEMA, DBConfig
    from flows.context import Context
    from flows.cron import CronSchedule, parse_cron
    from flows.errors import (
        ConfigError,
        ContextError,
        DatabaseError,
        DecodeError,
        DriftError,
        EmbeddedError,
        EncodeError,
        FlowsError,
        LeaseLostError,
        PayloadError,
        PayloadSizeError,
        RunStateError,
        RunTimeoutError,
        SchemaError,
        StepPanicError,
        StepTimeoutError,
        TerminalError,
        UnknownRunError,
        UnknownScheduleError,
        UnknownWorkflowError,
        WorkflowPanicError,
    )
    from flows.ids import RunID, RunKey
    from flows.registry import Registry, Workflow
    from flows.retry import RetryPolicy, RunRetryPolicy, exponential_backoff
    from flows.run_operations import RunStatus
    from flows.schedules import EverySchedule, Schedule, every, parse_schedule
    from flows.schema import (
        CITUS_SCHEMA_SQL,
        SCHEMA_SQL,
        check_version,
        citus_schema_sql_for,
        migrate,
        schema_sql_for,
    )
    from flows.shard import shard_values_for_workflow
    from flows.worker import Worker

__all__ = [
    "CITUS_SCHEMA_SQL",
    "DEFAULT_SCHEMA",
    "SCHEMA_SQL",
    "AsyncClient",
    "AsyncConnectedClient",
    "Client",
    "Codec",
    "ConfigError",
    "ConnectedClient",
    "Context",
    "ContextError",
    "CronSchedule",
    "DBConfig",
    "DatabaseError",
    "DecodeError",
    "DriftError",
    "EmbeddedError",
    "EncodeError",
    "EverySchedule",
    "FlowsError",
    "JSONCodec",
    "LeaseLostError",
    "MsgspecCodec",
    "OrjsonCodec",
    "PayloadError",
    "PayloadSizeError",
    "Registry",
    "RetryPolicy",
    "RunID",
    "RunKey",
    "RunRetryPolicy",
    "RunStateError",
    "RunStatus",
    "RunTimeoutError",
    "Schedule",
    "SchemaError",
    "StepPanicError",
    "StepTimeoutError",
    "TerminalError",
    "UnknownRunError",
    "UnknownScheduleError",
    "UnknownWorkflowError",
    "Worker",
    "Workflow",
    "WorkflowPanicError",
    "check_version",
    "citus_schema_sql_for",
    "codec_named",
    "every",
    "exponential_backoff",
    "migrate",
    "parse_cron",
    "parse_schedule",
    "register_codec",
    "schema_sql_for",
    "shard_values_for_workflow",
]

_HOMES = {
    "flows.async_client": "AsyncClient",
    "flows.async_connected": "AsyncConnectedClient",
    "flows.client": "Client ConnectedClient",
    "flows.codecs": "Codec JSONCodec MsgspecCodec OrjsonCodec codec_named register_codec",
    "flows.config": "DEFAULT_SCHEMA DBConfig",
    "flows.context": "Context",
    "flows.cron": "CronSchedule parse_cron",
    "flows.errors": (
        "ConfigError ContextError DatabaseError DecodeError DriftError EmbeddedError "
        "EncodeError FlowsError LeaseLostError PayloadError PayloadSizeError "
        "RunStateError RunTimeoutError SchemaError StepPanicError StepTimeoutError "
        "TerminalError UnknownRunError UnknownScheduleError UnknownWorkflowError "
        "WorkflowPanicError"
    ),
    "flows.ids": "RunID RunKey",
    "flows.registry": "Registry Workflow",
    "flows.retry": "RetryPolicy RunRetryPolicy exponential_backoff",
    "flows.run_operations": "RunStatus",
    "flows.schedules": "EverySchedule Schedule every parse_schedule",
    "flows.schema": (
        "CITUS_SCHEMA_SQL SCHEMA_SQL check_version citus_schema_sql_for migrate schema_sql_for"
    ),
    "flows.shard": "shard_values_for_workflow",
    "flows.worker": "Worker",
}
"""In which module each name is. They are imported when they are used: `flows --help` uses none."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> _typing.Any:
    """Import a name, or a module of the package, when it is first used."""
    if name in _HOME_OF:
        value = getattr(_import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    if f"flows.{name}" in _HOMES:
        return _import_module(f"flows.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what users import, whether it was used already or not."""
    return sorted({*globals(), *__all__})
