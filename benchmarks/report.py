"""The report of a run: Markdown, JSON and plots."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.contenders import PEERS
from benchmarks.figures import Figures, judged, target_table
from benchmarks.targets import TARGETS

__all__ = ["write_report"]


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
    lines += ["", "## Targets", "", target_table(targets, figures)]
    for workload in dict.fromkeys(workload for workload, _ in figures.series):
        lines += [f"## {workload}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {s} |" for (w, name), s in figures.series.items() if w == workload]
        lines += ["", *([f"![{workload}]({workload}.png)", ""] if workload in plots else [])]
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
    """Draw the medians of each workload with their spread; none without matplotlib."""
    with contextlib.suppress(ImportError):
        import matplotlib as mpl  # noqa: PLC0415  of an extra

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415

        drawn = set()
        for workload in {workload for workload, _ in figures.series}:
            ours = {name: s for (w, name), s in figures.series.items() if w == workload}
            unit = next(iter(ours.values())).unit
            ours = {name: series for name, series in ours.items() if series.unit == unit}
            middles = [series.median for series in ours.values()]
            below = [s.median - min(s.values) for s in ours.values()]
            above = [max(s.values) - s.median for s in ours.values()]
            figure, axes = plt.subplots(figsize=(8, 1 + 0.35 * len(ours)))
            axes.barh(list(ours), middles, xerr=[below, above], capsize=3)
            axes.invert_yaxis()
            axes.set_xlabel(unit)
            if min(middles) > 0 and max(middles) > 20 * min(middles):
                axes.set_xscale("log")
            axes.set_title(workload)
            figure.tight_layout()
            figure.savefig(folder / f"{workload}.png", dpi=100)
            plt.close(figure)
            drawn.add(workload)
        return drawn
    return set()
