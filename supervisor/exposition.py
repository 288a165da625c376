"""Metrics as the text that Prometheus reads. Needs the extra `metrics`."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from flows.metrics import (
    BY_NAME,
    DATABASE_UP,
    PROCESSES,
    QUEUE_OLDEST_SECONDS,
    QUEUE_RUNS,
    SCHEDULES_LATE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric as Family

    from flows.metrics import Changes, Key, Metric
    from flows.supervisor.backlog import Backlog
    from flows.supervisor.messages import Standing

__all__ = ["Snapshot", "render"]


class Snapshot(Collector):
    """All numbers at one moment."""

    def __init__(self, totals: Changes, standing: Standing, backlog: Backlog | None) -> None:
        """Bring numbers together.

        Args:
            totals: what has been counted.
            standing: of the supervisor.
            backlog: in the database; None where that does not answer.
        """
        self._series: dict[str, list[tuple[Key, list[float]]]] = defaultdict(list)
        for (name, *labels), numbers in totals:
            self._series[name].append((tuple(labels), numbers))
        for workflow, states in standing.processes.items():
            for state, count in states.items():
                self._series[PROCESSES.name].append(((workflow, state), [count]))
        self._series[DATABASE_UP.name].append(((), [backlog is not None]))
        if backlog is not None:
            self._gauge(QUEUE_RUNS, backlog.queued)
            self._gauge(QUEUE_OLDEST_SECONDS, backlog.oldest_s)
            self._gauge(SCHEDULES_LATE, backlog.late)

    def _gauge(self, metric: Metric, by_workflow: Mapping[str, float]) -> None:
        for workflow, value in by_workflow.items():
            self._series[metric.name].append(((workflow,), [value]))

    def collect(self) -> Iterator[Family]:
        """Yield a family for each metric that has a series."""
        for name, metric in BY_NAME.items():
            if name in self._series:
                yield _family(metric, self._series[name])


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return a snapshot as text, and its type.

    Args:
        snapshot: what to tell.
        accept: which types whoever asks can read, as HTTP says it.
    """
    encode, content_type = choose_encoder(accept)
    return encode(snapshot), content_type


def _family(metric: Metric, series: list[tuple[Key, list[float]]]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if metric.kind == "histogram":
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
        for labels, (*counts, total) in series:
            # Prometheus wants in each bucket those of the smaller ones, too.
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(labels, buckets, total)
        return family
    if metric.kind == "counter":
        family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, (value,) in series:
        family.add_metric(labels, value)
    return family
