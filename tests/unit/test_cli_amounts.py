"""What `flows runs show` makes of durations, sizes and values."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from flows.cli.plain import MAX_DEPTH, one_line, plain, printable, shortened
from flows.cli.quantities import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3.0, "0 ms"),
        (0.0004, "0 ms"),
        (0.0006, "1 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (86_369, "23 h 59 min"),
        (86_371, "1 d 0 h"),
        (30 * 3600, "1 d 6 h"),
    ],
)
def test_a_duration_has_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_940, "999.9 kB"),
        (999_960, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_a_size_has_the_unit_that_matters(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x00\xff", "AP8="),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ({7: (1, {2})}, {"7": [1, [2]]}),
        ({b"\xff": 2**80}, {"/w==": 2**80}),
        ([True, None, 0.5, "x"], [True, None, 0.5, "x"]),
    ],
)
def test_what_json_cannot_hold_is_told_in_other_words(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


def nested(levels: int) -> Any:
    value: Any = "core"
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_that_is_nested_too_deeply_is_refused_and_not_half_written() -> None:
    assert json.loads(one_line(plain(nested(MAX_DEPTH)))) == nested(MAX_DEPTH)
    with pytest.raises(RecursionError, match="deeper than 200 levels"):
        plain(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("command", ["\x1b[2J", "\x9b2J", "\r", "\u202e", "\x7f", "\x00"])
def test_what_a_terminal_would_obey_is_written_as_an_escape(command: str) -> None:
    for text in (printable(f"a{command}b"), one_line({command: command})):
        assert text.isprintable()
        assert "\\" in text


def test_line_feeds_are_kept_where_they_are_wanted() -> None:
    assert printable("é 漢\n\t", keep="\n") == "é 漢\n\\t"


def test_text_is_shortened_to_the_length_and_no_further() -> None:
    assert shortened("abcd", 4) == "abcd"
    assert shortened("abcde", 4) == "abc…"
