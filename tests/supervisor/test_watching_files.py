"""`--reload`: a source file of the application is changed, and the new code runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from tests.supervisor.harness import GREET, begin, child_titled, rows
from tests.waiting import wait_until, wait_until_gone

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartSource
    from tests.supervisor.harness import Supervised

pytest.importorskip("watchfiles")

HELPED = """
import words
from flows import Registry
registry = Registry()
@registry.workflow('greet')
def greet(wf, name): return f'{words.greeting} {name}'
"""


def folder_of(supervised: Supervised) -> Path:
    return Path(f"/proc/{supervised.pid}/cwd").resolve()


def watching(supervise: StartSource) -> Supervised:
    supervised = supervise(GREET, "--reload")
    supervised.expect_said("worker greet ready")
    supervised.expect_said(f"watching for changes: {folder_of(supervised) / 'shop.py'}\n")
    return supervised


def expect_greeting(supervised: Supervised, greeting: str) -> None:
    begin(supervised.dsn, "greet", "you")
    wait_until(
        lambda: (f"{greeting} you",) in rows(supervised.dsn, "output_json"),
        what=f"the code that says {greeting!r} has run",
    )


def test_a_changed_file_reloads_and_others_do_not(supervise: StartSource) -> None:
    supervised = watching(supervise)
    folder = folder_of(supervised)
    (folder / "notes.txt").write_text("no source file")
    (folder / "other.py").write_text("nothing of the application's")
    (folder / "shop.py").write_text(GREET.replace("hello", "good morning"))
    supervised.expect_said("reloaded in")
    assert "shop.py has changed: importing the application again" in supervised.stderr
    assert "other.py" not in supervised.stderr
    expect_greeting(supervised, "good morning")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert "nobody watches" not in supervised.stderr


def test_a_file_that_new_code_brings_along_is_watched_too(supervise: StartSource) -> None:
    supervised = watching(supervise)
    folder = folder_of(supervised)
    before = child_titled(supervised, "flows: watcher")
    (folder / "words.py").write_text("greeting = 'good morning'")
    (folder / "shop.py").write_text(HELPED)
    supervised.expect_said(f"watching for changes: {folder / 'shop.py'}, {folder / 'words.py'}\n")
    wait_until_gone(before, what="the one that watched before")
    expect_greeting(supervised, "good morning")
    (folder / "words.py").write_text("greeting = 'good night'")
    supervised.expect_said("words.py has changed")
    wait_until(lambda: supervised.stderr.count("reloaded in") == 2, what="it is reloaded")
    expect_greeting(supervised, "good night")


def test_after_code_that_cannot_be_imported_any_file_beside_it_may_mend_it(
    supervise: StartSource,
) -> None:
    supervised = watching(supervise)
    folder = folder_of(supervised)
    (folder / "words.py").write_text("greeting = (")
    (folder / "shop.py").write_text(HELPED)
    supervised.expect_said("reload aborted, the code before it goes on: importing shop failed")
    (folder / "words.py").write_text("greeting = 'good night'")
    supervised.expect_said("reloaded in")
    expect_greeting(supervised, "good night")


def test_when_nobody_watches_any_more_that_is_told_and_the_next_reload_mends_it(
    supervise: StartSource,
) -> None:
    supervised = watching(supervise)
    os.kill(child_titled(supervised, "flows: watcher"), signal.SIGKILL)
    supervised.expect_said("nobody watches the files any more: it died by SIGKILL")
    supervised.send(signal.SIGHUP)
    wait_until(
        lambda: supervised.stderr.count("watching for changes") == 2, what="somebody watches again"
    )
