"""What each workload must reach, as functions of the figures."""

from __future__ import annotations

from functools import partial

from benchmarks.figures import Figures, Target

__all__ = ["TARGETS"]


def _ratio(workload: str, of: str, to: str, times: float = 1.0) -> partial[float | None]:
    return partial(_ratio_of, workload, of, to, times)


def _ratio_of(workload: str, of: str, to: str, times: float, figures: Figures) -> float | None:
    ratio = figures.ratio((workload, of), (workload, to))
    return None if ratio is None else ratio * times


def _median(workload: str, name: str) -> partial[float | None]:
    return partial(_median_of, workload, name)


def _median_of(workload: str, name: str, figures: Figures) -> float | None:
    return figures.median(workload, name)


def _to_best_peer(figures: Figures) -> float | None:
    ours = figures.median("W3", "flows, p50")
    peers = [
        series.median
        for (workload, name), series in figures.series.items()
        if workload == "W3" and name.endswith(", p50") and not name.startswith("flows")
    ]
    return ours / min(peers) if ours is not None and peers else None


def _notification_cost(beside: str, figures: Figures) -> float | None:
    told, quiet = (f"{how}, 16 clients{beside}" for how in ("one", "one quiet"))
    ratio = figures.ratio(("W8", told), ("W8", quiet))
    return None if ratio is None else 100 * (1 - ratio)


def _msgspec_to_best_other(figures: Figures) -> float | None:
    worst = 0.0
    for label in ("100 B", "10 kB", "1 MB"):
        for other in ("json", "orjson"):
            ratio = figures.ratio(("W11", f"msgpack, {label}"), ("W11", f"{other}, {label}"))
            if ratio is None:
                return None
            worst = max(worst, ratio)
    return worst


OURS = "flows, concurrency 10"
ALONE = "flows, concurrency 1"
BARE_TWO = "bare loop, 2 processes"


def _burning(how: str) -> list[Target]:
    """Return the targets of W4 for processes that run as `how` says."""
    one, two = f"flows, 1 processes{how}", f"flows, 2 processes{how}"
    both = f"flows, two workflows side by side{how}"
    beside = f"two workflows side by side{how}: time beside"
    bare_one = _ratio("W4", one, "bare loop, 1 processes")
    alone, bare_two = _ratio("W4", one, both, 2), _ratio("W4", BARE_TWO, both)
    return [
        Target("W4", f"1 process{how} beside a bare loop", 0.97, bare_one),
        Target("W4", f"2 processes{how} beside 1", 1.9, _ratio("W4", two, one)),
        Target("W4", f"2 processes{how} beside 2 bare loops", 0.95, _ratio("W4", two, BARE_TWO)),
        Target("W4", f"{beside} one alone", 1.05, alone, at_most=True),
        Target("W4", f"{beside} two bare loops", 1.05, bare_two, at_most=True),
    ]


TARGETS = [
    Target("W1", "beside pgbench, 8 clients", 2.5, _ratio("W1", OURS, "pgbench, 8 clients")),
    Target(
        "W1",
        "concurrency 1, the default, beside pgbench",
        2.5,
        _ratio("W1", ALONE, "pgbench, 8 clients"),
    ),
    Target("W1", "beside DBOS", 30, _ratio("W1", OURS, "dbos")),
    Target("W1", "beside Absurd", 25, _ratio("W1", OURS, "absurd-sdk")),
    Target("W1", "beside Procrastinate", 20, _ratio("W1", OURS, "procrastinate")),
    Target("W1", "beside PgQueuer", 1, _ratio("W1", OURS, "pgqueuer")),
    Target("W2", "five steps beside one", 0.4, _ratio("W2", "flows, five", "flows, noop")),
    Target("W3", "p50", 2, _median("W3", "flows, p50"), at_most=True, unit="ms"),
    Target("W3", "p99", 6, _median("W3", "flows, p99"), at_most=True, unit="ms"),
    Target("W3", "p50 beside the best peer's", 1, _to_best_peer, at_most=True),
    *_burning(""),
    *_burning(", pinned"),
    Target("W5", "with history beside without", 0.9, _ratio("W5", "with history", "empty tables")),
    Target("W6", "last tenth beside the first", 0.6, _ratio("W6", "last tenth", "first tenth")),
    Target(
        "W7",
        "beside pgbench, 20 clients",
        0.6,
        _ratio("W7", "flows, concurrency 20", "pgbench, 20 clients"),
    ),
    Target("W8", "beside a bare INSERT", 0.9, _ratio("W8", "one, 1 clients", "bare, 1 clients")),
    Target("W8", "in bulk", 60_000, _median("W8", "bulk, 1 clients"), unit="runs/s"),
    Target(
        "W8",
        "notifications, 16 clients and a worker",
        15,
        partial(_notification_cost, " beside a worker"),
        at_most=True,
        unit="%",
    ),
    Target(
        "W8",
        "notifications, 16 clients, nobody listens",
        15,
        partial(_notification_cost, ""),
        at_most=True,
        unit="%",
    ),
    Target(
        "W9",
        "1,000 memos resumed",
        50,
        _median("W9", "flows, 1000 memos, resumed to completed"),
        at_most=True,
        unit="ms",
    ),
    Target("W10", "event p50", 4, _median("W10", "event, p50"), at_most=True, unit="ms"),
    Target("W10", "sleep p99", 30, _median("W10", "sleep, late, p99"), at_most=True, unit="ms"),
    Target("W11", "msgpack beside the best other", 1, _msgspec_to_best_other, at_most=True),
    Target(
        "W12",
        "backlog of 1,000,000 beside 10,000",
        0.8,
        _ratio("W12", "backlog 1,000,000", "backlog 10,000"),
    ),
    Target(
        "W12",
        "backlog of 10,000,000 beside 10,000",
        0.8,
        _ratio("W12", "backlog 10,000,000", "backlog 10,000"),
    ),
]
