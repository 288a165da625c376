"""The filter of runs: spans of time, bounds of ids, statuses that a command allows."""

from __future__ import annotations

from uuid import UUID

import pytest

from flows.cli.quantities import parse_span
from flows.cli.run_filter import EVERY_ID, RunFilter, id_bounds
from flows.errors import ConfigError

NOW_S = 1_800_000_000.0
HOUR_S = 3600.0


def id_at(at_s: float) -> UUID:
    return UUID(int=int(at_s * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("2h", 7200), ("1d12h", 129_600), ("1.5m", 90), ("2w", 1_209_600), ("0s", 0)],
)
def test_a_span_is_read_as_it_is_typed(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1y", "1h ", "1..5h", "٣h", "99999w"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no span of time|longer than a century"):
        parse_span(text)


def test_ids_that_hold_the_time_bound_an_age_with_an_hour_to_spare() -> None:
    least, greatest = id_bounds(id_at(NOW_S), NOW_S, 10 * HOUR_S, 20 * HOUR_S)
    assert least <= id_at(NOW_S - 21 * HOUR_S)
    assert id_at(NOW_S - 21 * HOUR_S - 1) < least
    assert id_at(NOW_S - 9 * HOUR_S - 1) < greatest
    assert greatest < id_at(NOW_S - 9 * HOUR_S + 1)


@pytest.mark.parametrize(
    "last", [UUID("f0000000-0000-4000-8000-000000000000"), id_at(NOW_S + 100 * HOUR_S)]
)
def test_ids_that_do_not_hold_the_time_bound_nothing(last: UUID) -> None:
    assert id_bounds(last, NOW_S, 10 * HOUR_S, None) == EVERY_ID


def test_a_shard_is_one_of_a_workflow_only_by_its_whole_name() -> None:
    chosen = RunFilter(workflow="demo")
    assert chosen.has_shard("demo_12")
    assert not chosen.has_shard("demo_more_0")
    assert not chosen.has_shard("other_demo_0")


def test_a_command_allows_some_statuses_and_refuses_others() -> None:
    allowed = ("queued", "sleeping")
    assert RunFilter().within(allowed).statuses == allowed
    assert RunFilter(statuses=("queued",)).within(allowed).statuses == ("queued",)
    with pytest.raises(ConfigError, match="runs that are failed cannot be chosen here"):
        RunFilter(statuses=("queued", "failed")).within(allowed)
