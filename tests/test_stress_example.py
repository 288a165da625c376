"""The stress harness: both worker sides, its report, and runs that fail or get lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from examples.stress.__main__ import main
from examples.stress.generator import turns
from examples.stress.load import Load
from examples.stress.workflows import Piece, burn, registry_by_environment
from flows import ConfigError
from tests.source_tree import ROOT

FLOWS = Path(sys.executable).with_name("flows")
STRESS = [sys.executable, "-m", "examples.stress"]

SMALL = [
    "--total-a", "40", "--total-b", "12", "--total-c", "6", "--total-d", "3", "--cpu-d", "1000",
    "--cpu-c", "500", "--sleep-b", "0.05", "--sleep-c", "0.1", "--sleep-d", "0", "--batch", "16",
]  # fmt: skip
BEGUN = {"stress_a": 40, "stress_b": 12, "stress_c": 6, "stress_d": 3}
ONE_OF_A = ["--total-a", "3", "--total-b", "0", "--total-c", "0", "--total-d", "0"]

Running = Callable[..., AbstractContextManager[None]]


def environment(variables: dict[str, str]) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("FLOWS_")
    }
    return {**inherited, **variables}


def stress(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run a command of the harness to its end."""
    done = subprocess.run(
        [*STRESS, *arguments], cwd=ROOT, env=environment(variables), capture_output=True,
        text=True, check=False, timeout=90,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Running:
    @contextlib.contextmanager
    def run(command: list[str], **variables: str) -> Iterator[None]:
        """Run a worker side meanwhile, and stop it; it has to end well."""
        log = tmp_path / "worker.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(variables), stdout=file, stderr=file
            )
            try:
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    code = process.wait(40)
                finally:
                    process.kill()
        assert code == 0, log.read_text()

    return run


def work(dsn: str, *options: str) -> list[str]:
    return [*STRESS, "work", "--dsn", dsn, *options]


def supervise(dsn: str, *options: str) -> list[str]:
    return [str(FLOWS), "supervise", "examples.stress:registry", "--dsn", dsn, *options]


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def begin_three(dsn: str) -> str:
    """Begin three runs of stress_a and return the generation."""
    code, out, err = stress("generate", "--no-wait", "--dsn", dsn, *ONE_OF_A)
    assert code == 0, err
    return out.strip()


@pytest.mark.parametrize("worker", [supervise, work])
def test_all_runs_are_completed_and_reported(
    flows_dsn: str, tmp_path: Path, running: Running, worker: Callable[[str], list[str]]
) -> None:
    files = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "report.png")]
    with running(worker(flows_dsn)):
        code, out, err = stress("generate", "--dsn", flows_dsn, "--interval", "0", *SMALL, *files)
    assert code == 0, err
    assert "53 of 61 begun" in err
    report = json.loads((tmp_path / "report.json").read_text())
    check_report(report, flows_dsn)
    for each in report["workflows"]:
        times = (f"{value:.3f}" for value in each["seconds"].values())
        counts = (str(each["begun"]), str(each["begun"]), "0", "0")
        assert " ".join((each["workflow"], *counts, *times)) in " ".join(out.split())
    picture = (tmp_path / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    # Width and height, at bytes 16 to 23 of every PNG.
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (1440, 672)


def check_report(report: dict[str, Any], dsn: str) -> None:
    assert (report["ok"], report["troubles"], report["schema"]) == (True, [], "flows")
    loads = report["settings"]["loads"]
    assert loads["stress_b"] == {"runs": 12, "iterations": 1000, "sleep_seconds": 0.05, "steps": 3}
    counts = ("begun", "completed", "failed", "lost")
    assert {each["workflow"]: [each[name] for name in counts] for each in report["workflows"]} == {
        workflow: [begun, begun, 0, 0] for workflow, begun in BEGUN.items()
    }
    check_seconds(report, dsn)
    of_c = next(each for each in report["workflows"] if each["workflow"] == "stress_c")
    assert of_c["seconds"]["min"] >= 0.1  # its durable sleep
    rate = sum(BEGUN.values()) / report["elapsed_seconds"]
    assert report["completed_per_second"] == pytest.approx(rate, rel=0.01)


def check_seconds(report: dict[str, Any], dsn: str) -> None:
    """Compare the times with those of all completed runs of the database."""
    took = "extract(epoch FROM updated_at - created_at)::float8"
    percentiles = ", ".join(
        f"percentile_cont({share}) WITHIN GROUP (ORDER BY {took})" for share in (0.5, 0.95, 0.99)
    )
    expected = rows(
        dsn,
        f"SELECT workflow_name, min({took}), {percentiles}, avg({took}), max({took})"
        " FROM flows.runs WHERE status = 'completed' GROUP BY 1 ORDER BY 1",
    )
    for each, (workflow, *seconds) in zip(report["workflows"], expected, strict=True):
        assert each["workflow"] == workflow
        assert list(each["seconds"]) == ["min", "p50", "p95", "p99", "avg", "max"]
        assert list(each["seconds"].values()) == pytest.approx(seconds, abs=1e-6)


def test_each_workflow_stores_its_payloads_in_its_own_way(flows_dsn: str, running: Running) -> None:
    with running(work(flows_dsn)):
        code, _, err = stress("generate", "--dsn", flows_dsn, *SMALL)
    assert code == 0, err
    query = (
        "SELECT DISTINCT workflow_name, codec, input_bytes IS NOT NULL, output_bytes IS NOT NULL"
        " FROM flows.runs ORDER BY 1"
    )
    assert rows(flows_dsn, query) == [
        ("stress_a", None, False, False),
        ("stress_b", "msgpack", True, True),
        ("stress_c", "orjson", False, False),
        ("stress_d", "msgspec-json", True, True),
    ]


def test_runs_over_many_shards_are_all_completed(flows_dsn: str, running: Running) -> None:
    options = ["--shards", "4"]
    with running(work(flows_dsn, *options, "--concurrency", "2")):
        code, _, err = stress(
            "generate", *options, "--sleep-b", "0", FLOWS_DATABASE_URL=flows_dsn,
            FLOWS_STRESS_TOTAL_A="0", FLOWS_STRESS_TOTAL_B="60", FLOWS_STRESS_TOTAL_C="0",
            FLOWS_STRESS_TOTAL_D="0",
        )  # fmt: skip
    assert code == 0, err
    shards = rows(flows_dsn, "SELECT DISTINCT workflow_name_shard FROM flows.runs ORDER BY 1")
    assert shards == [(f"stress_b_{shard}",) for shard in range(4)]


def test_a_run_that_fails_is_named_and_ends_in_code_1(
    flows_dsn: str, tmp_path: Path, running: Running
) -> None:
    generation = begin_three(flows_dsn)
    ((key,),) = rows(
        flows_dsn,
        'UPDATE flows.runs SET input_json = \'{"steps": "none"}\' WHERE run_id ='
        " (SELECT run_id FROM flows.runs LIMIT 1) RETURNING workflow_name_shard || ':' || run_id",
    )
    file = tmp_path / "report.json"
    with running(work(flows_dsn)):
        code, out, err = stress("report", generation, "--dsn", flows_dsn, "--json", str(file))
    assert code == 1
    assert f"stress: error: 1 run failed: {key} (flows.errors.DecodeError: " in err
    assert "lost" not in err
    report = json.loads(file.read_text())
    assert report["ok"] is False
    assert [(each["key"], each["status"]) for each in report["troubles"]] == [(key, "failed")]
    check_seconds(report, flows_dsn)
    (of_a,) = report["workflows"]
    assert [of_a[name] for name in ("begun", "completed", "failed", "lost")] == [3, 2, 1, 0]
    assert "stress_a      3          2       1     0" in out


def test_a_run_that_is_gone_is_lost_and_not_waited_for(flows_dsn: str, running: Running) -> None:
    begin_three(flows_dsn)
    ((key,),) = rows(
        flows_dsn,
        "DELETE FROM flows.runs WHERE run_id = (SELECT run_id FROM flows.runs LIMIT 1)"
        " RETURNING workflow_name_shard || ':' || run_id",
    )
    with running(work(flows_dsn)):
        code, _, err = stress("report", "--dsn", flows_dsn)
    assert code == 1
    assert f"stress: error: 1 run lost: {key} (missing); " in err


def test_runs_that_nobody_works_are_lost_when_the_time_is_over(
    flows_dsn: str, tmp_path: Path
) -> None:
    files = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "report.png")]
    code, out, err = stress(
        "generate", "--timeout", "0.3", "--interval", "0", "--dsn", flows_dsn, *ONE_OF_A, *files
    )
    assert code == 1
    assert "0 of 3 done" in err
    assert "no worker has taken one yet" in err
    keys = rows(
        flows_dsn, "SELECT workflow_name_shard || ':' || run_id FROM flows.runs ORDER BY run_id"
    )
    named = ", ".join(f"{key} (queued)" for (key,) in keys)
    assert f"stress: error: 3 runs lost: {named}; if they wait" in err
    assert "--schema flows --shards 1" in err
    assert "stress_a      3          0       0     3" in out
    (of_a,) = json.loads((tmp_path / "report.json").read_text())["workflows"]
    assert (of_a["lost"], of_a["seconds"]) == (3, None)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_another_generation_are_not_counted(flows_dsn: str, running: Running) -> None:
    begin_three(flows_dsn)
    latest = begin_three(flows_dsn)
    with running(work(flows_dsn)):
        code, out, err = stress("report", "--dsn", flows_dsn)
    assert code == 0, err
    assert "3 runs completed" in out
    assert rows(flows_dsn, "SELECT count(*) FROM stress_runs") == [(6,)]
    noted = rows(flows_dsn, f"SELECT count(*) FROM stress_runs WHERE generation = '{latest}'")
    assert noted == [(3,)]


def test_a_reset_deletes_what_was_generated_and_nothing_else(flows_dsn: str) -> None:
    begin_three(flows_dsn)
    rows(flows_dsn, "INSERT INTO flows.runs VALUES ('o_0', gen_random_uuid(), 'o', 'queued', '1')")
    code, out, err = stress("generate", "--no-wait", "--reset", "--dsn", flows_dsn, *ONE_OF_A)
    assert code == 0, err
    assert "deleted 3 runs of earlier generations" in err
    assert rows(flows_dsn, "SELECT DISTINCT generation::text FROM stress_runs") == [(out.strip(),)]
    query = "SELECT workflow_name, count(*) FROM flows.runs GROUP BY 1 ORDER BY 1"
    assert rows(flows_dsn, query) == [("o", 1), ("stress_a", 3)]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["generate", "--total-a", "-1"], "--total-a"),
        (["generate", "--sleep-b", "nan"], "'nan' is no number of seconds"),
        (["generate", "--steps-c", "0"], "--steps-c"),
        (["generate", "--total-a=0", *ONE_OF_A[2:]], "give one of --total-a"),
        (["generate", "--json", "/nowhere/report.json"], "'/nowhere'"),
        (["generate", "--plot", "report.jpg"], "must end in .png"),
        (["generate", "--no-wait", "--plot", "report.png"], "leave out --json and --plot"),
        (["generate", "--shards", "0"], "shard_count must be from 1"),
        (["generate", "--schema", "a-b"], "schema 'a-b'"),
        (["generate", "--dsn", "http://"], "expected postgresql://"),
        (["report", "soon"], "not a valid UUID"),
        (["work", "--concurrency", "0"], "--concurrency"),
        (["destroy"], "--help"),
        ([], "--help"),
    ],
    ids=" ".join,
)
def test_what_cannot_work_is_refused_in_a_line(
    arguments: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("stress: error: ")
    assert remedy in err
    assert err.count("\n") == 1


def test_a_report_of_nothing_says_what_to_do(flows_dsn: str) -> None:
    code, out, err = stress("report", "--dsn", flows_dsn)
    assert (code, out) == (2, "")
    assert "begin one: python -m examples.stress generate" in err


@pytest.mark.parametrize("command", ["generate", "report", "work"])
def test_a_database_without_tables_is_not_touched(dsn: str, command: str) -> None:
    code, out, err = stress(command, "--dsn", dsn)
    assert (code, out) == (4, "")
    assert err == "stress: error: schema 'flows' has no flows tables; run: flows migrate\n"


def test_without_matplotlib_a_plot_is_refused_before_anything_is_begun(
    flows_dsn: str, tmp_path: Path
) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None;"
        "from examples.stress.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )

    def generate(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", program, "generate", "--dsn", flows_dsn, "--timeout", "0",
             *options], cwd=ROOT, env=environment({}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, err = generate("--plot", str(tmp_path / "report.png"))
    assert code == 2
    assert "run: pip install 'pgflows[plot]', or leave out --plot" in err
    assert err.count("\n") == 1
    assert rows(flows_dsn, "SELECT count(*) FROM flows.runs") == [(0,)]
    # Without --plot nothing asks for it.
    code, err = generate(*ONE_OF_A)
    assert (code, "matplotlib" in err) == (1, False)


def test_workflows_take_turns_until_all_runs_are_begun() -> None:
    loads = {"a": Load(5, 0, 0, 1), "b": Load(2, 0, 0, 1)}
    assert list(turns(loads, 2)) == [
        ("a", range(2)), ("b", range(2)), ("a", range(2, 4)), ("a", range(4, 5)),
    ]  # fmt: skip


def test_the_processor_has_to_take_every_step_of_the_chain() -> None:
    inner = hashlib.sha256(hashlib.sha256(b"7").digest()).digest()
    assert burn(Piece("7", 2)) == hashlib.sha256(inner).hexdigest()
    assert burn(Piece("7", 0)) == hashlib.sha256(b"7").hexdigest()


def test_variables_shape_the_registry() -> None:
    given = {"FLOWS_STRESS_CONCURRENCY": "7", "FLOWS_STRESS_PROCESSES": "2"}
    for registry, expected in (
        (registry_by_environment(given), (7, 2)),
        (registry_by_environment({}), (4, 1)),
    ):
        assert registry.names() == tuple(BEGUN)
        assert {(each.concurrency, each.processes) for each in registry} == {expected}


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_variable_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"FLOWS_STRESS_PROCESSES=.*whole number from 1"):
        registry_by_environment({"FLOWS_STRESS_PROCESSES": value})
