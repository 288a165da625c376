"""The report of a run: Markdown, JSON and plots."""

from __future__ import annotations

import contextlib
import json
import statistics
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contenders import PEERS
from benchmarks.figures import Figures, Series, judged, target_table
from benchmarks.targets import TARGETS

__all__ = ["write_report"]

BACKLOG = "backlog"

_COMPARED = "Two figures are compared turn by turn; the median of that is told."


def write_report(folder: Path, machine: str, bench: Bench, chosen: list[str]) -> None:
    """Write `report.md`, `results.json` and a plot for each workload into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = bench.figures
    plots = _plots(folder, figures)
    targets = [target for target in TARGETS if target.workload in chosen]
    lines = [
        "# Benchmarks", "", "Written by `python -m benchmarks`: medians (smallest..largest).",
        "", machine, "",
    ]  # fmt: skip
    lines += [f"- {name} {version}: {PEERS[name].does}" for name, version in bench.peers.items()]
    if bench.scale < 1 or bench.repetitions < 2:
        lines += ["", "A quick look: few runs, so no figures to quote."]
    lines += ["", "## Targets", "", _COMPARED, "", target_table(targets, figures)]
    for workload in dict.fromkeys(workload for workload, _ in figures.series):
        lines += [f"## {workload}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {s} |" for (w, name), s in figures.series.items() if w == workload]
        mine = [plot for plot in sorted(plots) if plot.partition("_")[0] == workload]
        lines += ["", *[line for plot in mine for line in (f"![{plot}]({plot}.png)", "")]]
    if figures.failures:
        lines += ["## Not measured", "", *[f"- {what}: {why}" for what, why in figures.failures]]
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    results = {
        "machine": machine,
        "peers": bench.peers,
        "series": [
            {"workload": w, "name": name, "unit": s.unit, "values": s.values}
            for (w, name), s in figures.series.items()
        ],
        "targets": [
            {"workload": t.workload, "what": t.what, "goal": t.goal, "judged": judged(t, figures)}
            for t in targets
        ],
        "failures": figures.failures,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _plots(folder: Path, figures: Figures) -> set[str]:
    """Draw medians with their spread and return what was drawn; nothing without matplotlib."""
    with contextlib.suppress(ImportError):
        import matplotlib as mpl  # noqa: PLC0415  of an extra

        mpl.use("Agg")
        drawn = set()
        for workload in {workload for workload, _ in figures.series}:
            ours = {name: s for (w, name), s in figures.series.items() if w == workload}
            unit = statistics.mode(series.unit for series in ours.values())
            same = {name: series for name, series in ours.items() if series.unit == unit}
            _draw_bars(folder, workload, same)
            drawn.add(workload)
            backlogs = {_number(n): s for n, s in same.items() if n.startswith(BACKLOG)}
            if len(backlogs) > 1:
                _draw_line(folder, f"{workload}_{BACKLOG}", backlogs)
                drawn.add(f"{workload}_{BACKLOG}")
        return drawn
    return set()


def _number(name: str) -> int:
    return int(name.removeprefix(BACKLOG).replace(",", ""))


def _draw_bars(folder: Path, title: str, series: dict[str, Series]) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    middles = [each.median for each in series.values()]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.35 * len(series)))
    axes.barh(list(series), middles, xerr=_spreads(list(series.values())), capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel(next(iter(series.values())).unit)
    if min(middles) > 0 and max(middles) > 20 * min(middles):
        axes.set_xscale("log")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(folder / f"{title}.png", dpi=100)
    plt.close(figure)


def _draw_line(folder: Path, title: str, series: dict[int, Series]) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    middles = [each.median for each in series.values()]
    figure, axes = plt.subplots(figsize=(8, 4))
    axes.errorbar(
        list(series), middles, yerr=_spreads(list(series.values())), marker="o", capsize=3
    )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("runs that are queued")
    axes.set_ylabel(next(iter(series.values())).unit)
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(folder / f"{title}.png", dpi=100)
    plt.close(figure)


def _spreads(series: list[Series]) -> list[list[float]]:
    """Return how far below and above its median each series reaches."""
    below = [each.median - min(each.values) for each in series]
    above = [max(each.values) - each.median for each in series]
    return [below, above]
