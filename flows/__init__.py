"""Durable workflows on Postgres.

A workflow is an ordinary function; each step's result is memoized in Postgres, so a run survives
crashes, deploys, sleeps of days and waits for people. Business rows can be written in the same
transaction as the engine's own records.
"""

from flows.client import Client, RunStatus
from flows.codecs import Codec, JSONCodec, MsgspecCodec, OrjsonCodec, codec_named, register_codec
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
    "Client",
    "Codec",
    "ConfigError",
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
