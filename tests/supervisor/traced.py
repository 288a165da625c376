"""An application whose processes write their spans to a file, for the test of tracing."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from flows.context import Context
from flows.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def traced() -> Iterator[None]:
    with open(os.environ["SPANS"], "a") as out:  # noqa: PTH123
        exporter = ConsoleSpanExporter(
            out=out, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
        provider = TracerProvider()
        # An hour: what arrives was sent when the process ended.
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
        trace.set_tracer_provider(provider)
        yield


registry = Registry(lifespan=traced)


def die_once(flag: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        os._exit(9)


@registry.workflow("survivor")
def survivor(wf: Context, flag: str) -> None:
    wf.sleep("nap/v1", timedelta(milliseconds=1))
    wf.execute("die/v1", die_once, flag)
