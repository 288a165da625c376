"""What is told of a database that is away, and how often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flows import outages
from flows.outages import APART_S, REMIND_S, Outage, OutageLog

if TYPE_CHECKING:
    import pytest


def test_an_outage_is_told_when_it_begins_once_a_minute_and_when_it_is_over() -> None:
    outage = Outage()
    assert outage.worked(90.0) is None
    assert [outage.failed(100.0 + after_s) for after_s in (0.0, 0.1, 5.0)] == [True, False, False]
    assert not outage.failed(100.0 + REMIND_S - 0.1)
    assert outage.failed(100.0 + REMIND_S)
    assert not outage.failed(100.0 + REMIND_S + 5.0)
    assert outage.worked(170.0) == 70.0
    assert outage.worked(171.0) is None


def test_the_next_outage_is_told_too() -> None:
    outage = Outage()
    outage.failed(100.0)
    outage.worked(101.0)
    assert outage.failed(101.0 + APART_S)
    assert outage.worked(110.0) == 110.0 - 101.0 - APART_S


def test_what_comes_and_goes_is_told_once_a_minute() -> None:
    outage = Outage()
    told = []
    for tenth in range(2 * int(REMIND_S) * 10):
        if outage.failed(tenth / 10):
            told.append(tenth / 10)
        outage.worked(tenth / 10 + 0.05)
    assert told == [0.0, REMIND_S]


def test_the_log_has_a_line_for_the_beginning_and_one_for_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([100.0, 100.2, 112.5])
    monkeypatch.setattr(outages, "monotonic", lambda: next(moments))
    log = OutageLog(logging.getLogger("flows"), "claim")
    log.worked()
    log.failed(OSError("the first line\nand what may quote rows"))
    log.failed(OSError("again"))
    log.worked()
    log.worked()
    assert [record.getMessage() for record in caplog.records] == [
        "cannot claim, trying again: the first line",
        "can claim again, after 12.5 s",
    ]


def test_a_defect_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = OutageLog(logging.getLogger("flows"), "fire schedules")
    log.failed(ZeroDivisionError("of ours"), foreseen=False)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "ZeroDivisionError: of ours" in caplog.text
