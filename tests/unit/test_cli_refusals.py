"""What commands refuse before they look for a database: a line that says what, where and why."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from flows import embedded
from flows.cli import COMMANDS, cli
from flows.cli.errors import run_rendered
from flows.supervisor.exits import ExitCode

NOWHERE = ("--dsn", "postgresql://127.0.0.1:1/nowhere")
KEY = "demo_0:0190f0f0-0000-7000-8000-000000000000"
APP = """
from dataclasses import dataclass
from flows.registry import Registry

@dataclass
class Job:
    name: str
    count: int

registry = Registry()

@registry.workflow("render")
def render(wf, job: Job): ...

@registry.workflow("tick")
def tick(wf): ...
"""


@pytest.fixture(autouse=True)
def no_database_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWS_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def refusal(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run_rendered(cli, arguments)
    output = capfd.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) <= 2
    return code, output.err.removeprefix("flows: error: ")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{a}", "the input is not JSON: Expecting property name enclosed in double quotes: line 1"),
        ("", "the input is not JSON: Expecting value: line 1 column 1"),
        ('{"a": 1,\n "b": }', "line 2 column 7"),
        ("1 2", "Extra data: line 1 column 3"),
        ("[NaN]", "NaN is no number of JSON"),
        pytest.param("[" * 100_000, "the input is nested too deeply", id="deep"),
        ('"\udcff"', "the input is not UTF-8 text"),
    ],
)
def test_an_input_that_is_not_json_is_refused_with_its_place(
    document: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, error = refusal(capfd, "begin", "demo", document, *NOWHERE)
    assert code == ExitCode.CONFIG
    assert said in error
    assert ("\nin a shell it wants quotes" in error) == ("is not JSON" in error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["begin", " "], "a workflow's name must not be empty"),
        (["begin", "\udcff"], "cannot be printed"),
        (["begin", "demo", "--shards", "0"], "shard_count must be from 1"),
        (
            ["begin", "demo", "--schema", "no-schema"],
            "schema 'no-schema' is not a valid identifier",
        ),
        (["begin", "demo", "--target", "app"], "'app' does not name a registry"),
        (
            ["publish", "demo", "go"],
            "'demo' is not a run key: expected <workflow>_<shard>:<run id>",
        ),
        (["publish", "\udcff" + KEY, "go"], "the run key is not UTF-8 text"),
        (["publish", KEY, "\udcff"], "the event's name is not UTF-8 text"),
        (["publish", KEY, "go", "{"], "the payload is not JSON"),
        (["runs", "show", "demo_0:7"], "is not a run key"),
        (["runs", "show", KEY, "--schema", "pg_x"], "names starting with pg_ are PostgreSQL's"),
        (["migrate", "--schema", ""], "schema '' is not a valid identifier"),
        (["migrate", "--print", "--schema", "x y"], "schema 'x y' is not a valid identifier"),
        (["migrate", "--dsn", "nonsense"], "--dsn: the database's DSN cannot be read"),
        (["runs", "show", KEY, "--dsn", " "], "--dsn is empty"),
        (
            ["runs", "show", KEY, "--dsn", "postgresql://localhost:543x/app"],
            "--dsn: its port is not a number; in a URL a password's / is written as %2F",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, error = refusal(capfd, *arguments)
    assert code == ExitCode.CONFIG
    assert said in error
    assert not list(tmp_path.iterdir()), "nothing was created"


def test_a_password_with_a_slash_is_not_repeated_as_a_port(
    capfd: pytest.CaptureFixture[str],
) -> None:
    dsn = "postgresql://localhost:secret/word@localhost/app"
    code, error = refusal(capfd, "runs", "show", KEY, "--dsn", dsn)
    assert code == ExitCode.CONFIG
    assert "its port is not a number" in error
    assert "secret" not in error


@pytest.mark.parametrize("arguments", [["publish", KEY, "go"], ["runs", "show", KEY]])
def test_a_run_is_not_looked_for_in_a_database_that_would_have_to_be_made(
    arguments: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, error = refusal(capfd, *arguments)
    assert code == ExitCode.DATABASE
    assert f"no embedded one in {tmp_path}/.flows/pg\n" in error
    assert "give --dsn, set FLOWS_DATABASE_URL" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "no workflow named 'none' is registered (registered: render, tick)"),
        (["render"], "workflow 'render' takes Job, and no input was given"),
        (
            ["render", '{"name": "x", "count": "many"}'],
            (
                "workflow 'render' takes Job, and the input does not fit:"
                " Expected `int`, got `str` - at `$.count`"
            ),
        ),
        (["tick", "1"], "workflow 'tick' takes no input"),
    ],
)
def test_an_input_must_fit_the_workflow_of_the_app(
    arguments: list[str],
    said: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "some_app.py").write_text(APP)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "some_app", raising=False)
    code, error = refusal(capfd, "begin", *arguments, "--target", "some_app:registry", *NOWHERE)
    assert (code, error) == (ExitCode.CONFIG, f"{said}\n")


@pytest.mark.parametrize(
    "arguments",
    [["begin"], ["begin", "demo", "-5"], ["publish", KEY], ["runs", "halt"], ["db", "restart"]],
)
def test_a_command_line_that_does_not_parse_is_a_matter_of_usage(arguments: list[str]) -> None:
    assert run_rendered(cli, arguments) == ExitCode.USAGE


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), ["runs", "show"], ["db", "start"]], ids=" ".join
)
def test_every_command_explains_itself(
    command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_rendered(cli, [*command, "--help"]) == ExitCode.OK
    text = capfd.readouterr().out
    assert text.startswith("Usage: ")
    assert "--debug" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_command_has_its_section_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")
    sections = {line.split()[2] for line in text.splitlines() if line.startswith("## flows ")}
    assert sections | {"supervise"} == set(COMMANDS)


def test_a_failed_connection_repeats_the_dsn_without_its_password(
    capfd: pytest.CaptureFixture[str],
) -> None:
    dsn = "postgresql://me:s3cret@127.0.0.1:1/nowhere?password=s3cret&sslpassword=s3cret"
    code, error = refusal(capfd, "runs", "show", KEY, "--dsn", dsn)
    assert code == ExitCode.DATABASE
    assert error.startswith("cannot connect to the database: ")
    assert error.endswith("\ncheck --dsn: host=127.0.0.1 port=1 dbname=nowhere user=me\n")
    assert "s3cret" not in error


@pytest.mark.parametrize("name", ["url", "start", "stop"])
def test_an_embedded_database_of_another_user_names_the_folder(
    name: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(home: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(home / "users"))

    monkeypatch.setattr(embedded, name, refuse)
    code, error = refusal(capfd, "db", name)
    assert code == ExitCode.DATABASE
    assert error == (
        f"cannot use the embedded database in {tmp_path}/.flows/pg: Permission denied;"
        " run flows as its owner\n"
    )
