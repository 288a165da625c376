"""Results are printed so that a person can read them, on 80 columns too."""

from __future__ import annotations

import io
from typing import Any

from flows.supervisor.tables import print_value


def printed(value: Any, width: int = 80) -> list[str]:
    file = io.StringIO()
    print_value("census", value, file, width)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_records_become_a_table_with_numbers_on_the_right() -> None:
    assert printed([{"package": "asyncio", "files": 7}, {"package": "re", "files": 112}]) == [
        "census",
        "package   files",
        "───────────────",
        "asyncio       7",
        "re          112",
    ]


def test_a_column_of_fractions_has_one_number_of_decimals() -> None:
    lines = printed([{"x": 1.5}, {"x": 2}, {"x": 0.1 + 0.2}, {"x": None}])
    assert [line.strip() for line in lines[3:6]] == ["1.5", "2.0", "0.3"]


def test_a_column_of_whole_numbers_has_no_decimals() -> None:
    lines = printed([{"x": 10.0}, {"x": 3}])
    assert [line.strip() for line in lines[3:5]] == ["10", "3"]


def test_a_record_is_lines_and_the_records_within_it_are_tables_below() -> None:
    lines = printed({"files": 3, "packages": [{"name": "re", "lines": 10}], "root": "/usr/lib"})
    assert lines[:3] == ["census", "files  3", "root   /usr/lib"]
    assert lines[3:5] == ["", "packages"]
    assert lines[5] == "name   lines"
    assert lines[7] == "re        10"


def test_a_field_that_some_records_lack_is_empty_there() -> None:
    lines = printed([{"a": 1}, {"a": 2, "b": "two"}])
    assert lines[1].split() == ["a", "b"]
    assert lines[3].split() == ["1"]
    assert lines[4].split() == ["2", "two"]


def test_a_wide_table_fits_into_the_width_and_loses_no_text() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 4
    lines = printed([{"text": text, "other": "x" * 60, "count": 1234567}], width=80)
    assert max(map(len, lines)) <= 80
    assert any("1234567" in line for line in lines)
    assert sum(line.count("x") for line in lines) >= 60


def test_markup_in_data_is_text() -> None:
    assert "[bold]not bold[/bold] [/]" in "\n".join(printed([{"a": "[bold]not bold[/bold] [/]"}]))


def test_other_values_are_printed_as_they_are() -> None:
    assert printed(None) == ["census", ""]
    assert printed(42) == ["census", "42"]
    assert printed(["a", "b"]) == ["census", "a", "b"]
    assert printed({"done": True, "tags": ["x", "y"], "deep": [[1], {"a": None}]})[1:] == [
        "done  yes",
        "tags  x, y",
        'deep  [[1], {"a": null}]',
    ]
    assert printed([]) == ["census"]
    assert printed({}) == ["census"]
