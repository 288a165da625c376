"""What is measured: the metrics that there are, and how their numbers are added up.

    worker ──changes, once a second──▶ supervisor ──changes──▶ maintenance ──text──▶ Prometheus
    a Meter fills a Tally              a Tally: the totals     a Tally: a copy of them

Numbers of counters and histograms only grow. They are told as changes, what was added since they
were told last, so that the totals outlive each process in which something was counted.

A series is a metric with the values of its labels. It is a list of numbers: one for a counter; for
a histogram how many values fell into each bucket, those above all bounds last, then their sum.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ATTEMPT_SECONDS",
    "BY_NAME",
    "CLAIM_SECONDS",
    "COMMIT_GROUP_RUNS",
    "COMMIT_SECONDS",
    "CRASHES",
    "DATABASE_UP",
    "MAINTENANCE_RESTARTS",
    "OTHER_STEPS",
    "OUTCOMES",
    "OUTCOMES_DROPPED",
    "PROCESSES",
    "QUEUE_OLDEST_SECONDS",
    "QUEUE_RUNS",
    "RECOVERY_SECONDS",
    "RESTARTS",
    "RUNS_ENDED",
    "RUN_RETRIES",
    "SCHEDULES_LATE",
    "STEP_RETRIES",
    "STEP_SECONDS",
    "Changes",
    "Key",
    "Metric",
    "Tally",
    "observe",
    "zeros",
]

Key = tuple[str, ...]
"""A series: the name of its metric, then the values of its labels."""

Changes = tuple[tuple[Key, list[float]], ...]
"""What is to be added to series."""

OUTCOMES = ("completed", "failed", "cancelled")
"""How a run ends."""

MOST_STEPS = 50
"""Series for so many steps of a workflow: a key may have a number in it that never ends."""

OTHER_STEPS = "(other)"
"""The steps after those."""

_LONGEST_LABEL = 100


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: as Prometheus knows it.
        kind: what its values do: a counter grows, a gauge goes up and down, a histogram counts.
        labels: their names.
        help: what it is.
        bounds: of a histogram's buckets, inclusive.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()

    def nothing(self) -> list[float]:
        """Return a series of it in which nothing was counted."""
        return [0] * (len(self.bounds) + 2 if self.bounds else 1)


_DURATIONS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300, 1800, 7200)
_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_RECOVERIES = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)
_GROUPS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

_BY_WORKFLOW = ("workflow",)

RUNS_ENDED = Metric(
    "flows_runs_ended_total",
    "counter",
    ("workflow", "outcome"),
    "Runs that have ended, by outcome.",
)
RUN_RETRIES = Metric(
    "flows_run_retries_total",
    "counter",
    _BY_WORKFLOW,
    "Attempts that failed and are followed by another one.",
)
STEP_RETRIES = Metric(
    "flows_step_retries_total",
    "counter",
    _BY_WORKFLOW,
    "Tries of steps that failed and were followed by another one.",
)
ATTEMPT_SECONDS = Metric(
    "flows_attempt_seconds",
    "histogram",
    _BY_WORKFLOW,
    "How long attempts had an executor.",
    _DURATIONS,
)
STEP_SECONDS = Metric(
    "flows_step_seconds",
    "histogram",
    ("workflow", "step"),
    "How long steps took that returned.",
    _DURATIONS,
)
CLAIM_SECONDS = Metric(
    "flows_claim_seconds",
    "histogram",
    _BY_WORKFLOW,
    "How long the database took to hand out runs.",
    _LATENCIES,
)
COMMIT_SECONDS = Metric(
    "flows_commit_seconds",
    "histogram",
    _BY_WORKFLOW,
    "How long the database took to commit a group of outcomes and memos.",
    _LATENCIES,
)
COMMIT_GROUP_RUNS = Metric(
    "flows_commit_group_runs",
    "histogram",
    _BY_WORKFLOW,
    "How many runs were committed together.",
    _GROUPS,
)
OUTCOMES_DROPPED = Metric(
    "flows_outcomes_dropped_total",
    "counter",
    _BY_WORKFLOW,
    "Outcomes that came too late: another worker had taken the run.",
)
CRASHES = Metric(
    "flows_crashes_total", "counter", _BY_WORKFLOW, "Worker processes that died unasked."
)
RESTARTS = Metric(
    "flows_restarts_total",
    "counter",
    _BY_WORKFLOW,
    "Worker processes that were to be replaced because they had ended.",
)
MAINTENANCE_RESTARTS = Metric(
    "flows_maintenance_restarts_total",
    "counter",
    (),
    "Maintenance processes that were to be replaced.",
)
RECOVERY_SECONDS = Metric(
    "flows_recovery_seconds",
    "histogram",
    _BY_WORKFLOW,
    "From the end of a worker process to a replacement that can claim.",
    _RECOVERIES,
)
PROCESSES = Metric(
    "flows_processes", "gauge", ("workflow", "state"), "Worker processes, or places for them."
)
QUEUE_RUNS = Metric(
    "flows_queue_runs", "gauge", _BY_WORKFLOW, "Runs that are due and that nobody has taken."
)
QUEUE_OLDEST_SECONDS = Metric(
    "flows_queue_oldest_seconds",
    "gauge",
    _BY_WORKFLOW,
    "How long the oldest of them has been due.",
)
SCHEDULES_LATE = Metric(
    "flows_schedules_late",
    "gauge",
    _BY_WORKFLOW,
    "Schedules that should have fired ten seconds ago or earlier.",
)
DATABASE_UP = Metric(
    "flows_database_up", "gauge", (), "Whether the database answered when it was asked last."
)

BY_NAME = {each.name: each for each in tuple(globals().values()) if isinstance(each, Metric)}
"""All metrics."""


def observe(series: list[float], bounds: tuple[float, ...], value: float) -> None:
    """Count a value in a series of a histogram."""
    series[bisect_left(bounds, value)] += 1
    series[-1] += value


def zeros(workflow: str) -> Changes:
    """Return the series that a workflow has from the first, and in which nothing was counted.

    A counter that appears with its first count has never grown, for whoever asks how fast it does.
    """
    of_workflow = [
        each for each in BY_NAME.values() if each.labels == _BY_WORKFLOW and each.kind != "gauge"
    ]
    series = [((each.name, workflow), each.nothing()) for each in of_workflow]
    alone = ((MAINTENANCE_RESTARTS.name,), MAINTENANCE_RESTARTS.nothing())
    ended = [((RUNS_ENDED.name, workflow, each), RUNS_ENDED.nothing()) for each in OUTCOMES]
    return (*series, *ended, alone)


class Tally:
    """Series that are added to.

    Attributes:
        lock: guards them; `series` is called while it is held.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._series: dict[Key, list[float]] = {}
        self._steps: dict[str, set[str]] = {}

    def series(self, metric: Metric, *labels: str) -> list[float]:
        """Return a series, to be added to under the lock."""
        key = (metric.name, *labels)
        series = self._series.get(key)
        if series is None:
            if metric is STEP_SECONDS:
                key = (metric.name, labels[0], self._label_of(*labels))
            series = self._series.setdefault(key, metric.nothing())
        return series

    def _label_of(self, workflow: str, step: str) -> str:
        """Return as what a step is counted."""
        steps = self._steps.setdefault(workflow, set())
        step = step[:_LONGEST_LABEL]
        if step not in steps:
            if len(steps) >= MOST_STEPS:
                return OTHER_STEPS
            steps.add(step)
        return step

    def add(self, changes: Iterable[tuple[Key, list[float]]]) -> None:
        """Add what was counted elsewhere."""
        with self.lock:
            for (name, *labels), numbers in changes:
                series = self.series(BY_NAME[name], *labels)
                for place, number in enumerate(numbers):
                    series[place] += number

    def take(self) -> Changes:
        """Return what was added since the last time."""
        with self.lock:
            taken, self._series = self._series, {}
        return tuple(taken.items())

    def read(self) -> Changes:
        """Return all that was added."""
        with self.lock:
            return tuple((key, list(series)) for key, series in self._series.items())
