"""The picture of a generation: how long runs took, and when they were completed.

Imported only when a plot is asked for: it needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .report import FRACTIONS, Report
from .tables import Distribution

__all__ = ["draw"]

COLORS = {
    "stress_a": "#0072b2",
    "stress_b": "#d55e00",
    "stress_c": "#009e73",
    "stress_d": "#cc79a7",
}
"""Told apart by most colour-blind people too (Okabe and Ito)."""

_MARKED = {0.5: "o", 0.95: "s", 0.99: "D"}


def draw(report: Report, path: Path) -> None:
    """Draw a report into a PNG file."""
    figure = Figure(figsize=(12, 5.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    completed = sum(each.completed for each in report.workflows)
    shards = report.settings.shards
    figure.suptitle(
        f"{completed:,} runs completed in {report.elapsed_seconds:.1f} s"
        f" ({report.completed_per_second:,.0f} per second, {shards} shard{'s'[: shards != 1]})",
        fontsize=14,
        fontweight="bold",
    )
    for workflow, distribution in sorted(report.distributions.items()):
        load = report.settings.loads[workflow]
        label = f"{workflow}: {distribution.completed:,} runs, {load}"
        _draw_times(left, workflow, distribution, label)
        _draw_completions(right, workflow, distribution)
    _finish_times(left)
    _finish_completions(right)
    if report.distributions:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    else:
        figure.text(0.5, 0.5, "no run is completed", ha="center", fontsize=20, color="0.4")
    figure.savefig(path, format="png")


def _draw_times(axes: Axes, workflow: str, distribution: Distribution, label: str) -> None:
    # The axis is logarithmic, and an immediate completion is still one of a microsecond.
    took_s = [max(value, 1e-6) for value in distribution.took_s]
    axes.plot(took_s, FRACTIONS, color=COLORS[workflow], linewidth=2, label=label)
    for fraction, marker in _MARKED.items():
        value = took_s[FRACTIONS.index(fraction)]
        axes.plot([value], [fraction], marker, color=COLORS[workflow], markeredgecolor="white")


def _finish_times(axes: Axes) -> None:
    axes.set_title("How long runs took")
    axes.set_xscale("log")
    axes.set_xlabel("seconds from begun to completed (logarithmic)")
    axes.set_ylabel("share of the workflow's completed runs")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.02)
    axes.grid(visible=True, which="major", color="0.88")
    axes.grid(visible=True, which="minor", axis="x", color="0.94")
    for fraction, marker in _MARKED.items():
        axes.plot(
            [], [], marker, color="0.3", markeredgecolor="white", label=f"p{fraction:.0%}"[:-1]
        )
    marks = axes.get_lines()[-len(_MARKED) :]
    axes.legend(handles=marks, loc="upper left", frameon=False)
    for mark in marks:
        mark.set_label("_marks")  # not once more in the legend of the figure


def _draw_completions(axes: Axes, workflow: str, distribution: Distribution) -> None:
    axes.plot(distribution.completed_s, FRACTIONS, color=COLORS[workflow], linewidth=2)


def _finish_completions(axes: Axes) -> None:
    axes.set_title("When runs were completed")
    axes.set_xlabel("seconds since the generation began")
    axes.set_ylabel("share of the workflow's completed runs")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.grid(visible=True, color="0.88")
