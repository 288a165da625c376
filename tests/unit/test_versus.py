"""The table of the comparison with peers."""

from __future__ import annotations

from benchmarks.versus import Figures, table


def figures_of(per_s: list[float], latencies_ms: list[float], error: str = "") -> Figures:
    figures = Figures("something")
    figures.per_s, figures.latencies_ms, figures.error = per_s, latencies_ms, error
    return figures


def test_it_tells_medians_with_their_spread_and_how_many_times_faster_we_are() -> None:
    text = table(
        "a machine",
        {
            "flows": figures_of([6000, 5000, 4000], [1.0, 2.0, 3.0]),
            "other": figures_of([90, 100, 250], [10.0, 10.0]),
        },
    )
    assert "| flows | 5,000 (4,000 to 6,000) |  | 2.0 | 3.0 | something |" in text
    assert "| other | 100 (90 to 250) | 50.0 times | 10.0 | 10.0 | something |" in text


def test_who_failed_is_told_with_the_reason() -> None:
    text = table(
        "a machine", {"flows": figures_of([1.0], []), "other": figures_of([9.0], [], "no tables")}
    )
    assert "| other | failed | | | | no tables |" in text
