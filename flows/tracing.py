"""Spans for OpenTelemetry, where the application has set it up; elsewhere nothing, at no cost.

    begin ── context of the caller ──> flows.runs ──> claim ──> attempt span ──> step spans
                                                  └─> claim ──> attempt span ──> step spans

flows never imports OpenTelemetry before somebody else has: a process that has not loaded its API
has nothing that could take a span. What is stored with a run is what the global propagator writes,
as a JSON object of texts, and every attempt of the run is a child of it. Where nothing is stored
each attempt begins a trace of its own.

Whatever goes wrong in here is logged. A run never fails of being traced.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from flows.claims import ClaimedRun

__all__ = ["TracedSpan", "current_ids", "flush", "open_attempt", "open_step", "read_current"]

MAX_CONTEXT = 16_384
"""Characters of a context that is kept. W3C has baggage of at most 8,192 bytes and a tracestate of
512; a longer one loses its baggage."""

FLUSH_S = 5.0
"""How long a process that ends waits for its exporters."""

_NOTHING: tuple[str | None, str | None] = (None, None)

_logger = logging.getLogger("flows")


class _API:
    """The modules of OpenTelemetry's API that are needed here."""

    def __init__(self) -> None:
        from opentelemetry import context, propagate, trace  # noqa: PLC0415  loaded by others
        from opentelemetry.context import Context  # noqa: PLC0415

        self.context, self.propagate, self.trace = context, propagate, trace
        self.empty = Context()
        self._provider: object = None
        self._tracer: Tracer | None = None

    @property
    def is_set_up(self) -> bool:
        """Whether the application has said where spans go."""
        provider = self.trace.get_tracer_provider()
        idle = (self.trace.ProxyTracerProvider, self.trace.NoOpTracerProvider)
        return not isinstance(provider, idle)

    @property
    def tracer(self) -> Tracer:
        """Ours, of the provider that is set now."""
        provider = self.trace.get_tracer_provider()
        tracer = self._tracer
        if tracer is None or provider is not self._provider:
            tracer = provider.get_tracer("flows")
            self._provider, self._tracer = provider, tracer
        return tracer


_api: _API | None = None
_is_broken = False


def _loaded() -> _API | None:
    """Return the API if the application has loaded it."""
    global _api, _is_broken  # noqa: PLW0603  looked for until it is there
    if _api is None and not _is_broken and "opentelemetry.trace" in sys.modules:
        try:
            _api = _API()
        except Exception as error:  # noqa: BLE001  as of propagators that are not installed
            _is_broken = True
            _logger.warning("OpenTelemetry cannot be used, so nothing is traced: %s", error)
    return _api


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Log what a sampler, a processor or a propagator of the application raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  it is not the run's
        _logger.warning("a span was lost: %s: %s", type(error).__name__, error)


def read_current() -> str | None:
    """Return the context that is current here as it is stored with a run; None if there is none."""
    api = _loaded()
    if api is None or not api.context.get_current():
        return None
    carrier: dict[str, str] = {}
    with _harmless():
        api.propagate.inject(carrier)
        text = msgspec.json.encode(carrier).decode()
        if len(text) > MAX_CONTEXT:
            carrier.pop("baggage", None)
            text = msgspec.json.encode(carrier).decode()
        return text if carrier and len(text) <= MAX_CONTEXT else None
    return None


def current_ids() -> tuple[str | None, str | None]:
    """Return the ids of the current trace and span, as in `traceparent`; None where none is."""
    api = _loaded()
    if api is None:
        return _NOTHING
    found = api.trace.get_current_span().get_span_context()
    if not found.is_valid:
        return _NOTHING
    return f"{found.trace_id:032x}", f"{found.span_id:016x}"


class TracedSpan:
    """A span that is current within `with`, and ends with it unless it was ended before."""

    def __init__(self, api: _API, span: Span, parent: Context) -> None:
        self._api = api
        self._span = span
        self._context = api.trace.set_span_in_context(span, parent)
        self._retries = 0
        self._is_ended = False

    def __enter__(self) -> Self:
        self._token = self._api.context.attach(self._context)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.context.detach(self._token)
        if isinstance(error, Exception):
            self.fail(error)
            self.end("failed")
        else:
            self.end("completed" if error is None else "interrupted")

    def retry(self, error: Exception) -> None:
        """Note that a try has failed and there is another one."""
        self._retries += 1
        with _harmless():
            self._span.record_exception(error)

    def fail(self, error: BaseException) -> None:
        """Note what the work has failed with."""
        if self._is_ended or not self._span.is_recording():
            return
        with _harmless():
            trace = self._api.trace
            headline = str(error).partition("\n")[0]
            self._span.record_exception(error)
            self._span.set_status(
                trace.Status(trace.StatusCode.ERROR, f"{type(error).__name__}: {headline}")
            )
            self._span.set_attribute("error.type", _type_of(error))

    def end(self, outcome: str) -> None:
        """End, once; from any thread."""
        if self._is_ended:
            return
        self._is_ended = True
        with _harmless():
            if self._span.is_recording():
                self._span.set_attribute("flows.outcome", outcome)
                if self._retries:
                    self._span.set_attribute("flows.step.retries", self._retries)
            self._span.end()


def open_attempt(workflow: str, run: ClaimedRun) -> TracedSpan | None:
    """Return a span for an attempt, None where nobody wants one."""
    api = _loaded()
    if api is None or (run.trace_context is None and not api.is_set_up):
        return None
    with _harmless():
        parent = _parent_of(api, run.trace_context)
        span = api.tracer.start_span(
            f"run {workflow}",
            parent,
            kind=api.trace.SpanKind.CONSUMER,
            attributes={
                "flows.workflow": workflow,
                "flows.run.id": run.run_id,
                "flows.run.shard": run.shard,
                "flows.run.attempt": run.attempts + 1,
            },
        )
        return TracedSpan(api, span, parent)
    return None


def open_step(
    key: str,
    function: Callable[..., Any],
    workflow: str | None,
    run_id: str | None,
    attempt: int | None,
) -> TracedSpan | None:
    """Return a span for a step, None where its attempt has none."""
    api = _loaded()
    if api is None or not api.context.get_current():
        return None
    with _harmless():
        parent = api.context.get_current()
        span = api.tracer.start_span(
            f"step {_name_of(function)}",
            parent,
            attributes={
                "flows.workflow": workflow or "",
                "flows.run.id": run_id or "",
                "flows.run.attempt": attempt or 0,
                "flows.step.key": key,
            },
        )
        return TracedSpan(api, span, parent)
    return None


def flush() -> None:
    """Have exporters send what they hold; for a process that leaves without `atexit`."""
    api = _loaded()
    if api is None:
        return
    force = getattr(api.trace.get_tracer_provider(), "force_flush", None)
    if force is not None:
        # A collector that is away would keep it for longer than its own timeout says.
        sending = threading.Thread(target=_flush, args=(force,), name="flows-flush", daemon=True)
        sending.start()
        sending.join(FLUSH_S)


def _flush(force: Callable[[], object]) -> None:
    with _harmless():
        force()


def _parent_of(api: _API, stored: str | None) -> Context:
    if stored is None:
        return api.empty
    try:
        carrier = msgspec.json.decode(stored, type=dict[str, str])
    except msgspec.MsgspecError:
        # Whoever may begin runs may write anything there.
        return api.empty
    parent: Context = api.propagate.extract(carrier, context=api.empty)
    return parent


def _type_of(error: BaseException) -> str:
    kind = type(error)
    is_builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"


def _name_of(function: Callable[..., Any]) -> str:
    """Return a name of which there are few, as span names should be."""
    if isinstance(function, partial):
        return _name_of(function.func)
    return getattr(function, "__name__", None) or type(function).__name__
