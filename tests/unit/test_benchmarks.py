"""The pure parts of the benchmarks: medians, ratios, and whether a target is met."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figures, Series, Target, judged, target_table
from benchmarks.targets import TARGETS


def figures_of(*values: tuple[str, float]) -> Figures:
    figures = Figures()
    for name, value in values:
        figures.add("W1", name, value)
    return figures


def test_a_series_tells_its_median_and_its_spread() -> None:
    assert str(Series("ms", [3.0, 1.0, 2.0])) == "2 ms (1..3)"
    assert str(Series("runs/s", [5000.0, 12_345.6])) == "8,673 runs/s (5,000..12,346)"


def test_a_ratio_is_of_what_was_measured_in_turn_and_unknown_where_one_is_missing() -> None:
    ours = (("ours", 10), ("ours", 30), ("ours", 20))
    figures = figures_of(*ours, ("theirs", 5), ("theirs", 30), ("theirs", 5))
    assert figures.ratio(("W1", "ours"), ("W1", "theirs")) == 2
    assert figures.ratio(("W1", "ours"), ("W1", "nobody")) is None


def test_where_a_repetition_has_failed_a_ratio_is_of_medians() -> None:
    figures = figures_of(("ours", 10), ("ours", 30), ("ours", 20), ("theirs", 5))
    assert figures.ratio(("W1", "ours"), ("W1", "theirs")) == 4


def test_the_fastest_codec_is_beside_each_other_one_at_each_size() -> None:
    figures = Figures()
    target = next(target for target in TARGETS if target.workload == "W11")
    for codec, by_size in (("msgpack", (1, 2, 3)), ("json", (2, 4, 6)), ("orjson", (2, 2.5, 6))):
        for label, ms in zip(("100 B", "10 kB", "1 MB"), by_size, strict=True):
            assert target.reached(figures) is None
            figures.add("W11", f"{codec}, {label}", ms, "ms")
    assert target.reached(figures) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("value", "at_most", "verdict"),
    [(2.0, False, "yes"), (1.9, False, "no"), (2.0, True, "yes"), (2.1, True, "no")],
)
def test_a_target_is_met_at_its_bound(value: float, at_most: bool, verdict: str) -> None:
    target = Target("W1", "what", 2.0, lambda _: value, at_most=at_most)
    assert judged(target, Figures()) == (value, verdict)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    target = Target("W1", "what", 2.0, lambda _: None)
    assert "| W1 | what | ≥ 2 times |  | not measured |" in target_table([target], Figures())


def test_every_workload_has_a_target_that_can_do_without_figures() -> None:
    assert {target.workload for target in TARGETS} == {f"W{number}" for number in range(1, 13)}
    assert {judged(target, Figures())[1] for target in TARGETS} == {"not measured"}


def test_the_cost_of_notifications_is_the_share_that_is_lost() -> None:
    figures = Figures()
    for beside, told in (("", 80), (" beside a worker", 90)):
        figures.add("W8", f"one, 16 clients{beside}", told)
        figures.add("W8", f"one quiet, 16 clients{beside}", 100)
    found: dict[str, object] = {
        target.what: judged(target, figures)
        for target in TARGETS
        if target.what.startswith("notifications")
    }
    assert found == {
        "notifications, 16 clients and a worker": (pytest.approx(10), "yes"),
        "notifications, 16 clients, nobody listens": (pytest.approx(20), "no"),
    }
