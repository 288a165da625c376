"""What docs, dashboard and alerts say of metrics is true of those that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flows.metrics import BY_NAME, MOST_STEPS
from flows.supervisor import backlog, measuring

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "examples" / "deploy"
DOCS = (ROOT / "docs" / "metrics.md").read_text("utf-8")
ALERTS = (DEPLOY / "alerts.yaml").read_text("utf-8")
DASHBOARD = (DEPLOY / "dashboard.json").read_text("utf-8")

LABELS = {label for metric in BY_NAME.values() for label in metric.labels}
FROM_PROMETHEUS = {"instance", "le"}


def alert_expressions() -> list[str]:
    """Return what follows each `expr:`, with the lines of those that have several."""
    found = re.findall(r"expr: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", ALERTS)
    return [" ".join((several or one).split()) for several, one in found]


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD)["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def metric_of(name: str) -> str | None:
    """Return the metric that a series of this name belongs to."""
    if name in BY_NAME:
        return name if BY_NAME[name].kind != "histogram" else None
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if stem in BY_NAME and BY_NAME[stem].kind == "histogram" else None


@pytest.mark.parametrize("expression", alert_expressions() + dashboard_expressions())
def test_an_expression_uses_metrics_and_labels_that_exist(expression: str) -> None:
    names = re.findall(r"\bflows_\w+", expression)
    assert names
    metrics = [metric_of(name) for name in names]
    assert None not in metrics, names
    labels = {*FROM_PROMETHEUS, *(label for name in metrics for label in BY_NAME[str(name)].labels)}
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    used = {label for group in grouped for label in re.split(r",\s*", group)}
    used |= set(re.findall(r"[{,]\s*(\w+)=", expression))
    assert used <= labels
    assert expression.count("(") == expression.count(")")
    # How fast something grows can be asked of what grows only.
    for name in re.findall(r"\b(?:rate|increase)\((\w+)", expression):
        assert BY_NAME[str(metric_of(name))].kind != "gauge"


def test_the_expressions_are_found() -> None:
    assert len(alert_expressions()) == ALERTS.count("- alert:") > 10
    assert all(alert_expressions())


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        metric_of(name)
        for expression in dashboard_expressions()
        for name in re.findall(r"\bflows_\w+", expression)
    }
    assert shown == set(BY_NAME)


def test_texts_name_labels_that_exist() -> None:
    legends = set(re.findall(r"{{(\w+)}}", DASHBOARD))
    annotated = set(re.findall(r"\$labels\.(\w+)", ALERTS))
    assert legends | annotated <= LABELS | FROM_PROMETHEUS
    queries = [each["query"] for each in json.loads(DASHBOARD)["templating"]["list"]]
    for name, label in re.findall(r"label_values\((\w+), (\w+)\)", " ".join(queries)):
        assert label in BY_NAME[name].labels


def test_the_states_and_outcomes_that_alerts_ask_for_exist() -> None:
    asked = set(re.findall(r'(?:state|outcome)="(\w+)"', ALERTS))
    assert asked <= {*measuring.STATES, "completed", "failed", "cancelled"}


def test_the_page_describes_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(flows_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", DOCS, re.MULTILINE)
    described = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, _ in rows}
    rest = re.findall(r"^\| `(flows_\w+)` \| (\w+) \| \| (.+) \|$", DOCS, re.MULTILINE)
    described |= {name: (kind, []) for name, kind, _ in rest}
    assert described == {name: (each.kind, list(each.labels)) for name, each in BY_NAME.items()}


def test_the_page_gives_the_bounds_that_there_are() -> None:
    assert f"Of a shard {backlog.MOST_RUNS:,} runs are counted" in DOCS
    assert f"of the schedules of a workflow {backlog.MOST_SCHEDULES:,}." in DOCS
    assert f"{MOST_STEPS} steps of a workflow" in DOCS
    for state in measuring.STATES:
        assert f"`{state}`" in DOCS
