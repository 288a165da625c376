"""What children print reaches the supervisor line by line, and never holds them up."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from flows.supervisor.exits import ExitCode
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.supervisor.conftest import StartApp, StartStandin


def test_the_rest_of_a_line_is_heard_when_its_process_is_dead(standin: StartStandin) -> None:
    supervised = standin("prints")
    first = supervised.expect("ready", "prints")
    os.kill(first["pid"], signal.SIGTERM)
    supervised.expect_said("flows: worker prints | half a line\n")


def test_what_a_killed_child_has_printed_is_not_lost(standin: StartStandin) -> None:
    supervised = standin("chatters")
    first = supervised.expect("ready", "chatters")
    os.kill(first["pid"], signal.SIGKILL)
    supervised.expect("ready", "chatters")
    supervised.expect_said("flows: worker chatters | by print\n")
    supervised.expect_said("flows: worker chatters | by a descriptor\n")
    supervised.expect_said("flows: worker chatters | by a program\n")
    assert "flows: worker chatters | WARNING app: by logging\n" in supervised.stderr


def test_a_supervisor_that_does_not_read_holds_up_nobody(standin: StartStandin) -> None:
    supervised = standin("floods")
    first = supervised.expect("booted", "floods")
    supervised.send(signal.SIGSTOP)
    os.kill(first["pid"], signal.SIGUSR2)
    # Ten megabytes into a pipe of one, and it goes on.
    supervised.expect("flooded", "floods")
    supervised.send(signal.SIGCONT)
    supervised.expect("ready", "floods")
    supervised.expect_said("writes were dropped here: nobody was reading")


def test_programs_that_a_child_starts_get_descriptors_that_block(standin: StartStandin) -> None:
    supervised = standin("chatters")
    assert supervised.expect("descriptors", "chatters")["blocking"] == [True, True]


def test_logs_as_json_carry_the_run(app: StartApp) -> None:
    supervised = app(
        "--log-format", "json", "--log-level", "info", "--only", "logging", "--begin", "logging",
        "--drain",
    )  # fmt: skip
    assert supervised.wait() == ExitCode.OK
    documents = [json.loads(line) for line in supervised.stderr.splitlines()]
    said = {document["message"]: document for document in documents}
    mine = said["in a step"]
    assert mine["process"] == "worker logging"
    assert mine["level"] == "info"
    assert mine["logger"] == "app"
    assert (mine["workflow"], mine["attempt"], mine["step"]) == ("logging", 1, "log/v1")
    begun = next(message for message in said if message.startswith("begun "))
    assert begun.endswith(mine["run_id"])
    assert "ValueError: invalid literal" in said["with an exception"]["exception"]
    assert said["printed"]["process"] == "worker logging"
    assert said["with more"]["order"] == "7"
    assert said["with more"]["by"] == "{('a', 'pair'): '\\udce9'}"
    assert sum(message.startswith("long: ") for message in said) == 1
    assert {document["process"] for document in documents} >= {"supervisor", "worker logging"}


def test_what_the_supervisor_says_of_a_crash_needs_no_reading_of_prose(app: StartApp) -> None:
    supervised = app(
        "--log-format", "json", "--only", "poisoned", "--begin", "poisoned=-1", "--drain"
    )  # fmt: skip
    assert supervised.wait() == ExitCode.FAILED
    documents = [json.loads(line) for line in supervised.stderr.splitlines()]
    assert all("level" in each for each in documents if each["process"] == "supervisor")
    died = [each for each in documents if each.get("event") == "died" and each["level"] != "info"]
    assert [each["exit"] for each in died] == ["SIGSEGV"] * 3
    assert {(each["child"], each["workflow"]) for each in died} == {("worker poisoned", "poisoned")}
    crashes = [each for each in documents if each.get("event") == "crash"]
    assert [each["pid"] for each in crashes] == [each["child_pid"] for each in died]
    for each in crashes:
        assert (each["process"], each["level"]) == ("worker poisoned", "error")
        assert each["message"] == "Fatal Python error: Segmentation fault"
        assert " in swallow\n" in each["stack"]
    assert not any(each["message"].startswith(("  File", "Thread 0x")) for each in documents)
    begun, failed = (
        next(each for each in documents if each.get("event") == event)
        for event in ("begun", "run_failed")
    )
    assert (failed["level"], failed["workflow"]) == ("error", "poisoned")
    assert failed["key"] == begun["key"]
    assert failed["key"].endswith(failed["run_id"])


def test_logs_as_text_carry_the_run(app: StartApp) -> None:
    supervised = app("--only", "logging", "--begin", "logging", "--drain")
    assert supervised.wait() == ExitCode.OK
    warning = next(line for line in supervised.stderr.splitlines() if "with an exception" in line)
    assert warning.startswith("worker logging | WARNING app: with an exception [logging 0")
    assert warning.endswith(", attempt 1, step log/v1]")
    assert "worker logging | ValueError: invalid literal" in supervised.stderr
    # The root logger's level is Python's: warnings.
    assert "in a step" not in supervised.stderr


def test_nothing_is_said_by_children_that_have_nothing_to_say(app: StartApp) -> None:
    supervised = app("--only", "double")
    supervised.expect_said("worker double ready")
    wait_until(lambda: "maintenance ready" in supervised.stderr, what="maintenance is ready")
    supervised.send(signal.SIGTERM)
    assert supervised.wait() == ExitCode.OK
    assert all(line.startswith("flows: ") for line in supervised.stderr.splitlines())
