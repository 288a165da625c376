"""Cron expressions: what they mean, in agreement with another library, and across clock changes."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter

from flows import ConfigError, parse_cron

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00", "2026-01-01T00:01"),
        ("* * * * *", "2026-01-01T00:00:59.999999", "2026-01-01T00:01"),
        ("30 2 * * *", "2026-01-01T02:30", "2026-01-02T02:30"),
        ("30 2 * * *", "2026-01-01T02:29:59", "2026-01-01T02:30"),
        ("*/15 9-17 * * 1-5", "2026-01-02T17:45", "2026-01-05T09:00"),
        ("0 0 * * 0", "2026-01-01", "2026-01-04"),
        ("0 0 * * 7", "2026-01-01", "2026-01-04"),
        ("0 0 * * 5-7", "2026-01-03", "2026-01-04"),
        ("0 0 29 2 *", "2026-01-01", "2028-02-29"),
        ("0 0 29 2 *", "2096-03-01", "2104-02-29"),
        ("0 0 31 * *", "2026-01-31", "2026-03-31"),
        ("5,10-20/5 0 * * *", "2026-01-01T00:10", "2026-01-01T00:15"),
        # Both day fields restricted: either matches, and */2 is restricted.
        ("0 0 13 * 5", "2026-01-01", "2026-01-02"),
        ("0 0 13 * 5", "2026-01-09", "2026-01-13"),
        ("0 0 */2 * 1", "2026-01-03", "2026-01-05"),
        ("0 0 */2 * 1", "2026-01-11", "2026-01-12"),
        ("0 0 30 2 1", "2026-01-01", "2026-02-02"),
        ("7-7 * * * *", "2026-01-01T00:07", "2026-01-01T01:07"),
    ],
)
def test_the_next_time(expression: str, after: str, expected: str) -> None:
    assert parse_cron(expression).next(at(after)) == at(expected)
    assert parse_cron(expression).latest(at(expected)) == at(expected)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "has 0 fields, not 5"),
        ("* * * *", "has 4 fields, not 5"),
        ("0 0 * * * *", "has 6 fields, not 5"),
        ("60 * * * *", "'60' in field minute is out of range 0-59"),
        ("* 24 * * *", "'24' in field hour is out of range 0-23"),
        ("* * 0 * *", "'0' in field day of month is out of range 1-31"),
        ("* * * 13 *", "'13' in field month is out of range 1-12"),
        ("* * * * 8", "'8' in field day of week is out of range 0-7"),
        ("5-2 * * * *", "'5-2' in field minute goes backwards"),
        ("*/0 * * * *", "'*/0' in field minute has no step"),
        ("5/10 * * * *", "'5/10' in field minute is none of"),
        ("-5 * * * *", "is none of"),
        ("1,,2 * * * *", "is none of"),
        ("MON * * * *", "is none of"),
        ("\u0661 * * * *", "is none of"),
        ("@daily", "has 1 fields"),
        ("0 0 30 2 *", "never matches"),
        ("0 0 31 2,4,6,9,11 *", "never matches"),
    ],
)
def test_an_expression_that_cannot_work_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        parse_cron(expression)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "x\0"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigError, match=r"time zone .* is unknown here"):
        parse_cron("* * * * *", zone)


def test_the_text_is_what_was_given_with_single_spaces() -> None:
    schedule = parse_cron("  30   2 * *\t* ")
    assert str(schedule) == "30 2 * * *"
    assert parse_cron(str(schedule)) == schedule
    assert parse_cron("30 2 * * *", "Europe/Berlin") != schedule


# Clocks in Berlin go from 2 to 3 on 2026-03-29 (at 1 UTC), from 3 back to 2 on 2026-10-25 (at 1).
@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # Skipped: once, when the clock goes on. The day after as ever.
        (
            "30 2 * * *",
            "2026-03-28T12:00",
            ["2026-03-29T01:00", "2026-03-30T00:30", "2026-03-31T00:30"],
        ),
        # All that is skipped falls onto one instant, that of 3 o'clock.
        (
            "*/20 * * * *",
            "2026-03-29T00:30",
            ["2026-03-29T00:40", "2026-03-29T01:00", "2026-03-29T01:20"],
        ),
        # Twice on the clock: the first time only.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        (
            "*/30 * * * *",
            "2026-10-25T00:00",
            ["2026-10-25T00:30", "2026-10-25T02:00", "2026-10-25T02:30"],
        ),
        # From within the second of the two hours.
        ("*/30 * * * *", "2026-10-25T01:10", ["2026-10-25T02:00"]),
    ],
)
def test_days_on_which_clocks_are_changed(expression: str, after: str, expected: list[str]) -> None:
    schedule = parse_cron(expression, "Europe/Berlin")
    tick, before = at(after), None
    for each in expected:
        tick = schedule.next(tick)
        assert tick == at(each)
        assert schedule.latest(tick) == tick
        if before is not None:
            assert schedule.latest(tick - timedelta(microseconds=1)) == before
        before = tick


def test_the_latest_time_within_an_hour_that_occurs_twice() -> None:
    schedule = parse_cron("50 * * * *", "Europe/Berlin")
    assert schedule.latest(at("2026-10-25T01:10")) == at("2026-10-25T00:50")


def test_a_gap_of_half_an_hour_and_a_day_that_does_not_exist() -> None:
    lord_howe = parse_cron("15 2 * * *", "Australia/Lord_Howe")
    assert lord_howe.next(at("2026-10-03T12:00")) == at("2026-10-03T15:30")
    # Samoa went over the date line: there was no 30 December 2011.
    samoa = parse_cron("0 12 30 12 *", "Pacific/Apia")
    assert samoa.next(at("2011-12-01")) == at("2011-12-30T10:00")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
def test_going_back_finds_what_going_forward_has_found(zone: str) -> None:
    generator = random.Random(zone)
    for _ in range(150):
        schedule = parse_cron(expression_of(generator), zone)
        after = instant_of(generator)
        first = schedule.next(after)
        second = schedule.next(first)
        assert after < first < second
        assert schedule.latest(second) == second
        assert schedule.latest(second - timedelta(microseconds=1)) == first
        assert schedule.latest(first + (second - first) / 2) == first


def test_agreement_with_another_library() -> None:
    """10,000 random expressions and instants. What is left out, and why.

    croniter reads a range of one value, `7-7`, as `*`, and so a day field that names every day, as
    `0-6` does, which is restricted here. These are not drawn.
    """
    generator = random.Random(20261124)
    for _ in range(10_000):
        expression = expression_of(generator)
        after = instant_of(generator)
        theirs = croniter(expression, after, day_or=True, max_years_between_matches=20)
        try:
            parse_cron(expression)
        except ConfigError:
            with pytest.raises(CroniterBadDateError):
                theirs.get_next(datetime)
            continue
        assert parse_cron(expression).next(after) == theirs.get_next(datetime), (expression, after)


def expression_of(generator: random.Random) -> str:
    days = item_of(generator, 1, 31)
    fields = [(0, 59), (0, 23), None, (1, 12), (0, 6)]
    return " ".join(days if each is None else item_of(generator, *each) for each in fields)


def item_of(generator: random.Random, lowest: int, highest: int) -> str:
    first = generator.randint(lowest, highest - 1)
    last = generator.randint(first + 1, highest)
    if (first, last) == (lowest, highest):
        last -= 1
    step = generator.randint(2, 9)
    several = {generator.randint(lowest, highest) for _ in range(3)}
    return generator.choice(
        [
            "*",
            "*",
            str(first),
            f"{first}-{last}",
            f"*/{step}",
            f"{first}-{last}/{step}",
            ",".join(map(str, sorted(several))),
        ]
    )


def instant_of(generator: random.Random) -> datetime:
    return START + timedelta(seconds=generator.randint(0, 4 * 366 * 86400))


def test_times_are_in_utc_whatever_comes_in() -> None:
    after = datetime(2026, 1, 1, 9, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    found = parse_cron("0 * * * *").next(after)
    assert found == at("2026-01-01T01:00")
    assert found.tzinfo is UTC
