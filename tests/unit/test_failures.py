"""Error texts: what is recorded of an exception, whatever it is made of."""

from __future__ import annotations

import threading

import pytest

from flows.errors import StepPanicError, TerminalError
from flows.failures import MAX_ERROR_CHARACTERS, describe, first_line, stack_of, storable


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class LockedError(Exception):
    """Cannot be pickled, as it holds a lock."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


def raised(error: BaseException) -> BaseException:
    """Return the error with a traceback."""
    with pytest.raises(type(error)):
        raise error
    return error


def test_type_message_and_traceback_are_told() -> None:
    text = describe(raised(ValueError("no such scene")))
    assert text.startswith("ValueError: no such scene\n\nTraceback ")
    assert "in raised" in text


def test_a_type_of_a_module_is_told_with_its_module() -> None:
    assert describe(TerminalError("no")).startswith("flows.errors.TerminalError: no\n")


def test_an_error_without_a_message_is_its_type() -> None:
    assert describe(KeyError()).startswith("KeyError\n")


def test_the_cause_is_told_too() -> None:
    error = StepPanicError(SystemExit(3), "")
    error.__cause__ = raised(SystemExit(3))
    assert "SystemExit: 3" in stack_of(error)
    assert "step panicked: SystemExit: 3" in describe(error)


def test_an_error_whose_text_cannot_be_read_is_still_told() -> None:
    text = describe(raised(MuteError()))
    assert "MuteError: (its message could not be read)" in text
    assert "in raised" in text


def test_an_error_that_cannot_be_pickled_is_told_like_any_other() -> None:
    assert "LockedError: <unlocked _thread.lock" in describe(raised(LockedError()))


def test_what_a_text_column_refuses_is_written_out() -> None:
    assert storable("a\0b") == "a\\x00b"
    assert storable("a\ud800b") == "a\\ud800b"
    assert storable("größer …") == "größer …"


def test_a_long_text_keeps_head_and_tail() -> None:
    text = "head" + "x" * 100_000 + "tail"
    kept = storable(text)
    assert kept.startswith("head")
    assert kept.endswith("tail")
    assert len(kept) < MAX_ERROR_CHARACTERS + 100
    assert f"{len(text) - MAX_ERROR_CHARACTERS} characters left out" in kept


def test_a_text_at_the_bound_is_kept_whole() -> None:
    text = "x" * MAX_ERROR_CHARACTERS
    assert storable(text) == text
    assert storable(text + "x") != text + "x"


def test_the_log_tells_no_more_of_an_error_than_its_first_line() -> None:
    error = ValueError('null value in column "name"\nDETAIL:  Failing row contains (secret).')
    assert first_line(error) == 'null value in column "name"'
    assert len(first_line("x" * 1000)) == 200
