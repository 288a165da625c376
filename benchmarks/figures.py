"""What was measured, what was to be reached, and the verdict: pure, without a database."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Figures", "Series", "Target", "judged", "target_table"]


@dataclass(slots=True)
class Series:
    """Repetitions of one measurement.

    Attributes:
        unit: of the values.
        values: one a repetition.
    """

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{_short(self.median)} {self.unit} ({_short(low)}..{_short(high)})"


class Figures:
    """All series of a run, by workload and name, and what failed.

    Attributes:
        series: the measurements.
        failures: what could not be measured, each with its reason.
    """

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], Series] = {}
        self.failures: list[tuple[str, str]] = []

    def add(self, workload: str, name: str, value: float, unit: str = "runs/s") -> None:
        """Add a repetition."""
        self.series.setdefault((workload, name), Series(unit)).values.append(value)

    def median(self, workload: str, name: str) -> float | None:
        """Return the median of a series, None if there is none."""
        found = self.series.get((workload, name))
        return None if found is None else found.median

    def ratio(self, of: tuple[str, str], to: tuple[str, str]) -> float | None:
        """Return how many times as large one series is as another, None if one is missing.

        They are measured by turns, so each repetition is compared with the other's, and the median
        of that taken: a machine that is slower for a minute is slower for both.
        """
        above, below = self.series.get(of), self.series.get(to)
        if above is None or below is None or not all(below.values):
            return None
        if len(above.values) != len(below.values):  # a repetition has failed
            return above.median / below.median
        pairs = zip(above.values, below.values, strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Target:
    """What a workload must reach.

    Attributes:
        workload: its name.
        what: the quantity, in words.
        goal: the bound.
        reached: takes the quantity from the figures, None if it was not measured.
        at_most: whether less is better.
        unit: of the quantity.
    """

    workload: str
    what: str
    goal: float
    reached: Callable[[Figures], float | None]
    at_most: bool = False
    unit: str = "times"


def judged(target: Target, figures: Figures) -> tuple[float | None, str]:
    """Return what was reached, and `yes`, `no` or `not measured`."""
    value = target.reached(figures)
    if value is None:
        return None, "not measured"
    is_met = value <= target.goal if target.at_most else value >= target.goal
    return value, "yes" if is_met else "no"


def target_table(targets: list[Target], figures: Figures) -> str:
    """Return the targets as a Markdown table."""
    lines = ["| | target | | reached | met? |", "|---|---|---|---|---|"]
    for target in targets:
        value, verdict = judged(target, figures)
        sign = "≤" if target.at_most else "≥"
        reached = "" if value is None else f"{_short(value)} {target.unit}"
        goal = f"{sign} {_short(target.goal)} {target.unit}"
        lines.append(f"| {target.workload} | {target.what} | {goal} | {reached} | {verdict} |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
