"""Every error that flows raises on purpose.

    FlowsError
    ├── ConfigError            a name, option, DSN or registry that cannot work; raised at once
    ├── PayloadError
    │   ├── EncodeError        a value that a codec cannot keep, with the path to it
    │   ├── PayloadSizeError   a value that takes more bytes than `max_payload`
    │   └── DecodeError        stored bytes that do not fit the type asked for
    ├── SchemaError            the tables are missing or of another version
    ├── DatabaseError          the database cannot be reached or used
    ├── UnknownWorkflowError   no workflow of that name is registered here
    ├── UnknownRunError        no run with that key
    ├── RunStateError          the run's status does not allow it: no output yet, not cancellable
    ├── ContextError           a primitive used where it cannot work, or used inconsistently
    ├── DriftError             a step's memo was made from other input than the code gives now
    ├── StepTimeoutError       an attempt of a step took longer than its step_timeout
    ├── RunTimeoutError        a run was not done by its deadline
    ├── StepPanicError         a step left with something other than an Exception
    ├── WorkflowPanicError     the same for a workflow function
    ├── TerminalError          raised by user code: do not retry
    ├── LeaseLostError         this worker was judged dead; start a new one
    └── EmbeddedError          the embedded Postgres cannot be installed, started or stopped

Suspension (a durable sleep, a wait) is not an error: `Suspend` derives from `BaseException`, so
`except Exception` in a workflow cannot swallow it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "ContextError",
    "DatabaseError",
    "DecodeError",
    "DriftError",
    "EmbeddedError",
    "EncodeError",
    "FlowsError",
    "LeaseLostError",
    "PanicText",
    "PayloadError",
    "PayloadSizeError",
    "RunStateError",
    "RunTimeoutError",
    "SchemaError",
    "StepPanicError",
    "StepTimeoutError",
    "Suspend",
    "TerminalError",
    "UnknownRunError",
    "UnknownScheduleError",
    "UnknownWorkflowError",
    "WorkflowPanicError",
]


class FlowsError(Exception):
    """Base of every error that flows raises on purpose."""


class ConfigError(FlowsError, ValueError):
    """A name, an option, a DSN or a registry cannot work; says what and why."""


class PayloadError(FlowsError):
    """A value or its stored form cannot pass through a codec.

    Attributes:
        of: which value it is, as `what step 'trace/v1' returned`; empty where the caller knows.
    """

    of = ""

    def __str__(self) -> str:
        return f"{self.of}: {self._fault()}" if self.of else self._fault()

    def _fault(self) -> str:
        return super().__str__()


class EncodeError(PayloadError):
    """A codec cannot keep a value.

    Attributes:
        codec: name of the codec.
        path: where the value stands, as `$.jobs[3].name`; `$` is the payload itself.
        reason: why it would not survive.
    """

    def __init__(self, codec: str, path: str, reason: str) -> None:
        super().__init__(codec, path, reason)
        self.codec = codec
        self.path = path
        self.reason = reason

    def _fault(self) -> str:
        return f"codec {self.codec!r} cannot keep {self.path}: {self.reason}"


class PayloadSizeError(PayloadError):
    """A value takes more bytes than are allowed: keep it elsewhere, and its address here.

    Attributes:
        size: how many it takes, encoded.
        limit: how many may be, the `max_payload` of the workflow or of the client.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def _fault(self) -> str:
        return f"{self.size:,} bytes encoded, more than max_payload allows ({self.limit:,})"


class DecodeError(PayloadError):
    """Stored bytes do not decode into the type asked for.

    Attributes:
        codec: name of the codec.
        type_name: the type asked for.
        reason: what did not fit, with its path where the decoder gives one.
    """

    def __init__(self, codec: str, type_name: str, reason: str) -> None:
        super().__init__(codec, type_name, reason)
        self.codec = codec
        self.type_name = type_name
        self.reason = reason

    def _fault(self) -> str:
        return f"codec {self.codec!r} cannot decode into {self.type_name}: {self.reason}"


class SchemaError(FlowsError):
    """The tables are missing, or of a version that this code does not speak."""


class DatabaseError(FlowsError):
    """The database cannot be reached or used as it is."""


class UnknownWorkflowError(FlowsError, LookupError):
    """No workflow of that name is registered.

    Attributes:
        name: the name asked for.
        known: the names that are registered.
    """

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"no workflow named {self.name!r} is registered (registered: {known})"


class UnknownRunError(FlowsError, LookupError):
    """No run has that key.

    Attributes:
        run_key: the key asked for, as text.
    """

    def __init__(self, run_key: str) -> None:
        super().__init__(run_key)
        self.run_key = run_key

    def __str__(self) -> str:
        return f"no run {self.run_key}"


class UnknownScheduleError(FlowsError, LookupError):
    """No schedule has that id.

    Attributes:
        schedule_id: the id asked for.
    """

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"no schedule {self.schedule_id!r}"


class RunStateError(FlowsError):
    """The status of the run does not allow what was asked.

    Attributes:
        run_key: key of the run, as text.
        status: its status.
        wanted: what was asked, as in "be cancelled".
        detail: the run's error text where it has one.
    """

    def __init__(self, run_key: str, status: str, wanted: str, detail: str | None = None) -> None:
        super().__init__(run_key, status, wanted, detail)
        self.run_key = run_key
        self.status = status
        self.wanted = wanted
        self.detail = detail

    def __str__(self) -> str:
        text = f"run {self.run_key} is {self.status} and cannot {self.wanted}"
        return f"{text}: {self.detail}" if self.detail else text


class ContextError(FlowsError):
    """A primitive was used where it cannot work, or twice in ways that contradict."""


class DriftError(FlowsError):
    """A step was given other input than its memo was made from, or a wait another event.

    Attributes:
        run_key: key of the run, as text.
        key: of the step or the wait.
        before: digest of the input that the memo was made from, in hexadecimal; name of the event.
        now: the same of what the code gives or names now.
        kind: `"step"` or `"wait"`.
    """

    def __init__(self, run_key: str, key: str, before: str, now: str, kind: str = "step") -> None:
        super().__init__(run_key, key, before, now, kind)
        self.run_key = run_key
        self.key = key
        self.before = before
        self.now = now
        self.kind = kind

    def __str__(self) -> str:
        if self.kind == "wait":
            return (
                f"run {self.run_key}: wait {self.key!r} was begun for event {self.before!r}, the"
                f" code names {self.now!r} now; give a wait for another event a new key"
            )
        return (
            f"run {self.run_key}: the memo of step {self.key!r} was made from other input"
            f" (digest {self.before}) than the code gives it now ({self.now});"
            " give a step whose input changes a new key"
        )


class StepTimeoutError(FlowsError, TimeoutError):
    """An attempt of a step took longer than its `step_timeout`.

    Attributes:
        step_key: the step.
        timeout_s: its limit in seconds.
        elapsed_s: how long the attempt took, in seconds.
    """

    def __init__(self, step_key: str, timeout_s: float, elapsed_s: float) -> None:
        super().__init__(step_key, timeout_s, elapsed_s)
        self.step_key = step_key
        self.timeout_s = timeout_s
        self.elapsed_s = elapsed_s

    def __str__(self) -> str:
        return (
            f"step {self.step_key!r} took {self.elapsed_s:.3f} s,"
            f" longer than its timeout of {self.timeout_s:g} s"
        )


class RunTimeoutError(FlowsError, TimeoutError):
    """A run was not done by its deadline; it has failed for good.

    Attributes:
        run_key: key of the run, as text.
    """

    def __init__(self, run_key: str) -> None:
        super().__init__(run_key)
        self.run_key = run_key

    def __str__(self) -> str:
        return f"run {self.run_key} was not done by its deadline"


class _PanicError(FlowsError):
    what = ""

    def __init__(self, value: Any, stack: str = "") -> None:
        super().__init__(value, stack)
        self.value = value
        self.stack = stack

    def __str__(self) -> str:
        return f"{self.what} panicked: {_panic_text(self.value)}"

    def __reduce__(self) -> tuple[Any, ...]:
        # The value may hold anything, a lock or a socket included: its text travels for it.
        return (type(self), (PanicText(_panic_text(self.value)), self.stack))


class PanicText(str):
    """What is left of a panic's value in another process: its type and text."""

    __slots__ = ()


def _panic_text(value: object) -> str:
    if isinstance(value, PanicText):
        return str(value)
    try:
        return f"{type(value).__name__}: {value}"
    except Exception:  # noqa: BLE001  a value whose str() raises is still reported
        return type(value).__name__


class StepPanicError(_PanicError):
    """A step left with something other than an `Exception`: `SystemExit`, `KeyboardInterrupt`, ….

    Attributes:
        value: what was raised.
        stack: the traceback as text.
    """

    what = "step"


class WorkflowPanicError(_PanicError):
    """A workflow function left with something other than an `Exception`.

    Attributes:
        value: what was raised.
        stack: the traceback as text.
    """

    what = "workflow"


class TerminalError(FlowsError):
    """Raise it in a step or a workflow to fail the run at once, whatever the retry policies say."""


class LeaseLostError(FlowsError):
    """A worker under a supervisor was judged dead and its runs were given to others."""


class EmbeddedError(FlowsError):
    """The embedded Postgres cannot be installed, started or stopped; says what to do."""


class Suspend(BaseException):
    """Unwinds a workflow function that yields; never an error, never caught by user code."""
