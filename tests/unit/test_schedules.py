"""Intervals, texts of schedules, and what becomes of ticks that were missed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows import ConfigError, every, parse_cron, parse_schedule
from flows.clock import LONGEST
from flows.schedules import ScheduleOptions, Ticks, jitter_of, plan_ticks, tick_run_id

DUE = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "interval", "canonical"),
    [
        ("1m30s", timedelta(seconds=90), "1m30s"),
        ("90s", timedelta(seconds=90), "1m30s"),
        ("1h", timedelta(hours=1), "1h0m0s"),
        ("36h0m0.5s", timedelta(hours=36, milliseconds=500), "36h0m0.5s"),
        ("1.5h", timedelta(minutes=90), "1h30m0s"),
        (".5s", timedelta(milliseconds=500), "500ms"),
        ("1.25ms", timedelta(microseconds=1250), "1.25ms"),
        ("7us", timedelta(microseconds=7), "7µs"),
        ("7µs", timedelta(microseconds=7), "7µs"),
        ("7\u03bcs", timedelta(microseconds=7), "7µs"),
        ("1000ns", timedelta(microseconds=1), "1µs"),
        ("+5s", timedelta(seconds=5), "5s"),
    ],
)
def test_intervals_are_written_as_go_writes_them(
    text: str, interval: timedelta, canonical: str
) -> None:
    assert parse_schedule(f"@every {text}") == every(interval)
    assert str(every(interval)) == f"@every {canonical}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@every 0", "must be positive"),
        ("@every 0s", "must be positive"),
        ("@every -5s", "must be positive"),
        ("@every 100ns", "must be positive"),
        ("@every ", "cannot be read"),
        ("@every 5", "cannot be read"),
        ("@every 5 s", "cannot be read"),
        ("@every 5d", "cannot be read"),
        ("@every \u0665s", "cannot be read"),
        ("@every 1m 30s", "cannot be read"),
        ("@every 99999999999h", "is too long"),
        ("@hourly", "has 1 fields"),
        ("nonsense", "has 1 fields"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_schedule(text)


@pytest.mark.parametrize("interval", [timedelta(), timedelta(seconds=-1), 5, None])
def test_an_interval_must_be_a_positive_duration(interval: Any) -> None:
    with pytest.raises(ConfigError, match="an interval must be"):
        every(interval)


def test_an_interval_is_counted_from_the_time_given() -> None:
    assert every(HOUR).next(DUE) == DUE + HOUR


@pytest.mark.parametrize(
    ("options", "late", "fired"),
    [
        # On time, or late by less than a tick: every policy fires it.
        ({}, timedelta(), [0]),
        ({"catch_up": "skip"}, timedelta(seconds=59), [0]),
        ({"catch_up": "all"}, timedelta(minutes=59), [0]),
        # After a downtime of three hours and a half.
        ({}, 3.5 * HOUR, [3]),
        ({"catch_up": "skip"}, 3.5 * HOUR, []),
        ({"catch_up": "all"}, 3.5 * HOUR, [0, 1, 2, 3]),
        ({"catch_up": "all", "catch_up_limit": 2}, 3.5 * HOUR, [2, 3]),
        # The latest of the missed ticks is on time all the same.
        ({"catch_up": "skip"}, 3 * HOUR + timedelta(seconds=10), [3]),
    ],
)
@pytest.mark.parametrize("schedule", [every(HOUR), parse_cron("0 * * * *")])
def test_what_becomes_of_missed_ticks(
    schedule: Any, options: dict[str, Any], late: timedelta, fired: list[int]
) -> None:
    ticks = plan_ticks(schedule, DUE, DUE + late, ScheduleOptions(**options))
    assert ticks.fire == [DUE + index * HOUR for index in fired]
    assert ticks.next == DUE + (late // HOUR + 1) * HOUR


def test_intervals_do_not_drift() -> None:
    tick, schedule = DUE, every(timedelta(seconds=7))
    for _ in range(1000):
        tick = plan_ticks(schedule, tick, tick + timedelta(seconds=3), ScheduleOptions()).next
    assert tick == DUE + timedelta(seconds=7000)


def test_a_time_that_the_rule_does_not_name_counts_all_the_same() -> None:
    odd = DUE + timedelta(minutes=7)
    schedule = parse_cron("0 * * * *")
    assert plan_ticks(schedule, odd, odd, ScheduleOptions()) == Ticks([odd], DUE + HOUR)
    ticks = plan_ticks(schedule, odd, odd + 2 * HOUR, ScheduleOptions(catch_up="all"))
    assert ticks.fire == [odd, DUE + HOUR, DUE + 2 * HOUR]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"catch_up": "none"}, "catch_up must be one of skip, latest, all, not 'none'"),
        ({"overlap": "queue"}, "overlap must be one of allow, skip, not 'queue'"),
        ({"catch_up_limit": 0}, "catch_up_limit must be from 1 to 10000, not 0"),
        ({"catch_up_limit": True}, "catch_up_limit"),
        ({"catch_up_limit": 10_001}, "catch_up_limit"),
        ({"jitter": timedelta(seconds=-1)}, "jitter"),
        ({"jitter": 5}, "jitter"),
        ({"jitter": LONGEST + HOUR}, "jitter must be at most a thousand years"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        ScheduleOptions(**options)


def test_the_run_of_a_tick_has_one_id_and_no_other_tick_has_it() -> None:
    first = tick_run_id("nightly", DUE)
    assert first == tick_run_id("nightly", DUE.astimezone())
    ids = {tick_run_id("nightly", DUE + index * HOUR) for index in range(1000)}
    assert len(ids | {tick_run_id("hourly", DUE)}) == 1001
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert first.int >> 80 == DUE.timestamp() * 1000


def test_jitter_is_spread_over_its_range_and_the_same_for_the_same_tick() -> None:
    offsets = [jitter_of("nightly", DUE + index * HOUR, HOUR) for index in range(1000)]
    assert offsets[7] == jitter_of("nightly", DUE + 7 * HOUR, HOUR)
    assert all(timedelta() <= each < HOUR for each in offsets)
    assert min(offsets) < HOUR / 20
    assert max(offsets) > HOUR * 19 / 20
