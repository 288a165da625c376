"""The registry: which workflows exist here, and how each is run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from flows import payloads
from flows.clock import LONGEST
from flows.codecs import Codec, JSONCodec, register_codec
from flows.config import DEFAULT_MAX_PAYLOAD, check_max_payload, check_workflow_name
from flows.errors import ConfigError, UnknownWorkflowError
from flows.retry import RunRetryPolicy
from flows.signatures import WorkflowTypes, workflow_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from flows.context import Context
    from flows.drift import DriftPolicy
    from flows.payloads import Payload

__all__ = ["CommitMode", "Registry", "Workflow", "WorkflowClass"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
InputT_contra = TypeVar("InputT_contra", contravariant=True)
OutputT_co = TypeVar("OutputT_co", covariant=True)

CommitMode = Literal["attempt", "step"]
"""When `wf.tx` is committed: at the end of the attempt, or at the end of each step."""

_DURATIONS = ("max_age", "hang_timeout", "run_timeout", "retention")


class WorkflowClass(Protocol[InputT_contra, OutputT_co]):
    """A workflow as an object: a name and a function of context and input."""

    @property
    def name(self) -> str:
        """The workflow's name."""
        ...

    def run(self, wf: Context, inp: InputT_contra, /) -> OutputT_co:
        """Run the workflow, again from the top at every resume."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Workflow(Generic[InputT, OutputT]):
    """A registered workflow: what clients accept as a handle, and how workers run it.

    Attributes:
        name: its name, unique in a registry.
        function: `(wf, input) -> output`.
        types: input and output types from the annotations.
        codec: how its input, memos and output are stored.
        concurrency: executor threads in each of its processes.
        processes: processes under a supervisor.
        run_retry: whether and when a failed run is tried again.
        commit: when `wf.tx` is committed.
        on_drift: what is done when a step's input is not what its memo was made from, or a wait's
            event not the one it was begun for.
        max_runs: attempts after which a supervisor replaces a process, None for never.
        max_age: how long it keeps one.
        max_rss: bytes of resident memory that one may hold.
        max_crashes: a run fails when its process has died so often while it ran.
        hang_timeout: how long one may run no Python before it is killed.
        run_timeout: how long after its first claim a run fails at the latest.
        max_payload: bytes that an input, a step's input or value, or an output may take.
        retention: how long a supervisor keeps runs that have ended, None for ever.
        pinned: whether each process under a supervisor keeps to one core.
    """

    name: str
    function: Callable[..., OutputT]
    types: WorkflowTypes
    codec: Codec
    concurrency: int
    processes: int
    run_retry: RunRetryPolicy
    commit: CommitMode
    on_drift: DriftPolicy = "warn"
    max_runs: int | None = None
    max_age: timedelta | None = None
    max_rss: int | None = None
    max_crashes: int = 3
    hang_timeout: timedelta | None = None
    run_timeout: timedelta | None = None
    max_payload: int = DEFAULT_MAX_PAYLOAD
    retention: timedelta | None = None
    pinned: bool = False

    def __call__(self, wf: Context, *args: InputT) -> OutputT:
        """Call the workflow function itself, as from another function; starts no run."""
        return self.function(wf, *args)

    def encode(self, value: Any) -> Payload:
        """Return one of its values as it is stored.

        Raises:
            EncodeError: its codec cannot keep the value.
            PayloadSizeError: it takes more than `max_payload`.
        """
        return payloads.encode(self.codec, value, self.max_payload)


class Registry:
    """Maps names to workflows.

    Use `workflow` to decorate a function and `register` for an object with `name` and `run`.
    """

    def __init__(
        self, *, lifespan: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        """Begin with no workflow.

        Args:
            lifespan: called in each worker process of a supervisor; the context manager that it
                returns is entered before the process claims a run, and left when its runs have
                ended. For what does not survive a fork, such as threads, connections and
                exporters. What it raises ends the process. A `Worker` in a process of yours
                does not call it.
        """
        self._workflows: dict[str, Workflow[Any, Any]] = {}
        self.lifespan = lifespan

    def workflow(
        self,
        name: str,
        *,
        codec: Codec | None = None,
        concurrency: int = 1,
        processes: int = 1,
        run_retry: RunRetryPolicy | None = None,
        commit: CommitMode = "attempt",
        on_drift: DriftPolicy = "warn",
        max_runs: int | None = None,
        max_age: timedelta | None = None,
        max_rss: int | None = None,
        max_crashes: int = 3,
        hang_timeout: timedelta | None = None,
        run_timeout: timedelta | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        retention: timedelta | None = None,
        pinned: bool = False,
    ) -> _Decorator:
        """Register the decorated function `(wf, input) -> output` under `name`.

        Args:
            name: its name, unique here.
            codec: how its payloads are stored, `JSONCodec()` by default.
            concurrency: executor threads in each of its processes.
            processes: processes under a supervisor.
            run_retry: whether and when a failed run is tried again, by default not.
            commit: `"attempt"` commits `wf.tx` when an attempt yields or ends, `"step"` at the
                end of each step.
            on_drift: when a step is given other input than its memo was made from, or a wait is for
                another event, `"warn"` logs that and uses the memo, `"error"` raises `DriftError`.
            max_runs: a supervisor replaces a process that has finished so many attempts. Like
                the next two it does so between runs, with the replacement ready first.
            max_age: one that is so old; these two are shortened by up to a tenth at random.
            max_rss: one that holds so many bytes of memory, where the system tells (Linux).
            max_crashes: a run fails for good when its process, under a supervisor, has died so
                often while it ran.
            hang_timeout: a supervisor kills a process in which no Python has run for so long, as
                in a call into C that never returns. A busy step is no such thing.
            run_timeout: a run fails for good, with `RunTimeoutError`, so long after a worker first
                took it, its sleeps and retries included. The time it was queued before does not
                count: `deadline` of `begin_tx` is for that.
            max_payload: bytes that a run's input, a step's input or value, or an output may take,
                encoded; 32 MiB by default, 256 MiB - 1 at most. One that takes more is refused
                with `PayloadSizeError`.
            retention: a supervisor deletes a run, however it has ended, so long after that. By
                default runs are kept until `flows prune` deletes them.
            pinned: a supervisor has each process keep to one core, of its own where there are
                enough (Linux). For steps that burn CPU in Python; programs and threads that a
                step starts keep to that core as well.

        Raises:
            ConfigError: one of them cannot work, or the name is taken.
        """
        name = check_workflow_name(name)
        _check_count(name, "concurrency", concurrency)
        _check_count(name, "processes", processes)
        _check_count(name, "max_crashes", max_crashes)
        check_max_payload(f"workflow {name!r}", max_payload)
        for what, count in (("max_runs", max_runs), ("max_rss", max_rss)):
            if count is not None:
                _check_count(name, what, count)
        spans = (max_age, hang_timeout, run_timeout, retention)
        _check_durations(name, dict(zip(_DURATIONS, spans, strict=True)))
        _check_switch(name, "pinned", pinned)
        return _Decorator(
            self,
            name,
            codec or JSONCodec(),
            run_retry,
            commit,
            on_drift,
            concurrency=concurrency,
            processes=processes,
            max_runs=max_runs,
            max_age=max_age,
            max_rss=max_rss,
            max_crashes=max_crashes,
            hang_timeout=hang_timeout,
            run_timeout=run_timeout,
            max_payload=max_payload,
            retention=retention,
            pinned=pinned,
        )

    def register(
        self,
        workflow: WorkflowClass[InputT, OutputT],
        *,
        codec: Codec | None = None,
        concurrency: int = 1,
        processes: int = 1,
        run_retry: RunRetryPolicy | None = None,
        commit: CommitMode = "attempt",
        on_drift: DriftPolicy = "warn",
        max_runs: int | None = None,
        max_age: timedelta | None = None,
        max_rss: int | None = None,
        max_crashes: int = 3,
        hang_timeout: timedelta | None = None,
        run_timeout: timedelta | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        retention: timedelta | None = None,
        pinned: bool = False,
    ) -> Workflow[InputT, OutputT]:
        """Register an object with `name` and `run(wf, input)`; options as for `workflow`.

        Raises:
            ConfigError: one of them cannot work, or the name is taken.
        """
        name = check_workflow_name(getattr(workflow, "name", None))
        run = getattr(workflow, "run", None)
        if run is None:
            raise ConfigError(f"workflow {name!r} has no method run(wf, input)")
        decorator = self.workflow(
            name,
            codec=codec,
            concurrency=concurrency,
            processes=processes,
            run_retry=run_retry,
            commit=commit,
            on_drift=on_drift,
            max_runs=max_runs,
            max_age=max_age,
            max_rss=max_rss,
            max_crashes=max_crashes,
            hang_timeout=hang_timeout,
            run_timeout=run_timeout,
            max_payload=max_payload,
            retention=retention,
            pinned=pinned,
        )
        return decorator(run)

    def add(self, workflow: Workflow[Any, Any]) -> None:
        """Take in a workflow that is described already.

        Raises:
            ConfigError: its name is taken.
        """
        if workflow.name in self._workflows:
            raise ConfigError(f"a workflow named {workflow.name!r} is registered already")
        self._workflows[workflow.name] = workflow

    def workflows(self) -> tuple[Workflow[Any, Any], ...]:
        """Return the workflows in the order they were registered."""
        return tuple(self._workflows.values())

    def names(self) -> tuple[str, ...]:
        """Return their names in the same order."""
        return tuple(self._workflows)

    def get(self, name: str) -> Workflow[Any, Any]:
        """Return the workflow of that name.

        Raises:
            UnknownWorkflowError: there is none.
        """
        try:
            return self._workflows[name]
        except KeyError:
            raise UnknownWorkflowError(name, self.names()) from None

    def only(self, names: tuple[str, ...] | list[str]) -> Registry:
        """Return a registry of the workflows named.

        Raises:
            UnknownWorkflowError: one of them is not registered here.
        """
        chosen = Registry(lifespan=self.lifespan)
        for name in dict.fromkeys(names):
            chosen.add(self.get(name))
        return chosen

    def check_not_empty(self) -> None:
        """Refuse a registry that nothing was registered in.

        Raises:
            ConfigError: it is empty.
        """
        if not self._workflows:
            raise ConfigError("the registry is empty: register a workflow before running it")

    def __iter__(self) -> Iterator[Workflow[Any, Any]]:
        return iter(self.workflows())

    def __len__(self) -> int:
        return len(self._workflows)

    def __contains__(self, name: object) -> bool:
        return name in self._workflows


class _Decorator:
    def __init__(
        self,
        registry: Registry,
        name: str,
        codec: Codec,
        run_retry: RunRetryPolicy | None,
        commit: CommitMode,
        on_drift: DriftPolicy,
        **numbers: Any,
    ) -> None:
        if not isinstance(codec, Codec):
            raise ConfigError(f"workflow {name!r}: codec must be a Codec, not {codec!r}")
        if run_retry is not None and not isinstance(run_retry, RunRetryPolicy):
            raise ConfigError(f"workflow {name!r}: run_retry must be a RunRetryPolicy")
        if commit not in ("attempt", "step"):
            raise ConfigError(f"workflow {name!r}: commit must be 'attempt' or 'step'")
        if on_drift not in ("warn", "error"):
            raise ConfigError(f"workflow {name!r}: on_drift must be 'warn' or 'error'")
        # By its name the payloads of the workflow find it, here and in every client.
        register_codec(codec)
        self._registry = registry
        self._name = name
        self._options: dict[str, Any] = {
            "codec": codec,
            "run_retry": run_retry or RunRetryPolicy(),
            "commit": commit,
            "on_drift": on_drift,
            **numbers,
        }

    @overload
    def __call__(
        self, function: Callable[[Context, InputT], OutputT], /
    ) -> Workflow[InputT, OutputT]: ...
    @overload
    def __call__(self, function: Callable[[Context], OutputT], /) -> Workflow[None, OutputT]: ...
    def __call__(self, function: Callable[..., Any], /) -> Workflow[Any, Any]:
        types = workflow_types(self._name, function)
        workflow: Workflow[Any, Any] = Workflow(self._name, function, types, **self._options)
        self._registry.add(workflow)
        return workflow


def _check_count(name: str, what: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"workflow {name!r}: {what} must be a whole number from 1, not {count!r}")


def _check_switch(name: str, what: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"workflow {name!r}: {what} must be True or False, not {value!r}")


def _check_durations(name: str, durations: dict[str, timedelta | None]) -> None:
    for what, duration in durations.items():
        if duration is not None:
            _check_duration(name, what, duration)


def _check_duration(name: str, what: str, duration: object) -> None:
    if not isinstance(duration, timedelta) or not timedelta() < duration <= LONGEST:
        raise ConfigError(
            f"workflow {name!r}: {what} must be a positive timedelta of at most a thousand years,"
            f" not {duration!r}"
        )
