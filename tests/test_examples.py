"""The examples run as their first lines say, with results known beforehand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psycopg
import pytest

from examples.census import CensusOrder, registry
from examples.census.report import CensusResult
from examples.census.tables import create_tables
from flows import Client, RunKey, Worker, embedded
from tests.source_tree import ROOT

FLOWS = Path(sys.executable).with_name("flows")
SIMPLE = ROOT / "examples" / "simple.py"

SIMPLE_OUTPUT = re.compile(
    r"letters=11 number=3 accepted=True completed='hello [0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}'\n"
)

SUM = '''
def {name}({items}, {start}={default}):
    """{doc}"""
    {total} = {start}
    for {item} in {items}:
        if {item} is not None and {item} > 0:
            {total} += {item} * 2
    return {result}
'''

TREE = {
    "top.py": '''
        """One code line, and a function of two."""
        import os  # 1

        def simple(a):  # 2
            # nothing
            return a  # 3
        ''',
    "alpha/__init__.py": '"""No code at all."""\n',
    "alpha/branches.py": """
        class Chooser:
            def choose(self, a, b, c):
                if a and b or c:
                    return 1
                elif b:
                    return 2
                return [x for x in c if x] or (3 if a else 4)

            async def wait(self, a):
                async for x in a:
                    yield x
        """,
    "alpha/total.py": SUM.format(
        name="total", items="items", start="start", default=0, doc="", total="result",
        item="item", result="result",
    ),
    "beta/deep/total.py": SUM.format(
        name="renamed", items="rows", start="base", default=100, doc="Other.", total="acc",
        item="row", result="acc",
    ),
    "beta/rounded.py": SUM.format(
        name="rounded", items="rows", start="base", default=1, doc="", total="acc",
        item="row", result="round(acc)",
    ),
    "beta/broken.py": "def f(:\n",
    "beta/site-packages/ignored.py": "def ignored(): pass\n",
}  # fmt: skip

ORDER = {"min_tokens": 20, "similarity_percent": 70, "quiet_seconds": 0.05, "batch_kilobytes": 1}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for path, source in TREE.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(textwrap.dedent(source), "utf-8")
    return root


def run(command: list[str], *, cwd: Path = ROOT, **variables: str) -> tuple[int, str, str]:
    """Run a program to its end; the only database it hears of is in `variables`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"DATABASE_URL", "FLOWS_DATABASE_URL"}
    }
    done = subprocess.run(
        command, cwd=cwd, env={**inherited, **variables}, capture_output=True, text=True,
        check=False, timeout=90,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def supervise(dsn: str, target: str, *options: str) -> tuple[int, str, str]:
    return run([str(FLOWS), "supervise", target, "--dsn", dsn, *options])


def one_row(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchone()


@pytest.mark.parametrize(
    "command", [[str(SIMPLE)], ["-m", "examples.simple"]], ids=["script", "module"]
)
def test_simple_runs_alone_on_a_database_without_tables(dsn: str, command: list[str]) -> None:
    code, out, err = run([sys.executable, *command], FLOWS_DATABASE_URL=dsn)
    assert (code, err) == (0, "")
    assert SIMPLE_OUTPUT.fullmatch(out)


def test_simple_needs_no_database_to_be_set_up(tmp_path: Path) -> None:
    code, out, err = run([sys.executable, str(SIMPLE)], cwd=tmp_path)
    assert (code, err) == (0, "")
    assert SIMPLE_OUTPUT.fullmatch(out)
    home = tmp_path / ".flows" / "pg"
    assert home.is_dir()
    embedded.stop(home)


def test_simple_is_worked_by_a_supervisor_too(flows_dsn: str) -> None:
    given = {"initial_data": "world", "sleep_seconds": 0.01}
    with psycopg.connect(flows_dsn) as tx:
        key = Client().begin_tx(tx, "demo_process", given)
        Client().publish_event_tx(tx, key, "CustomerNumberEvent", 3)
    code, _, err = supervise(flows_dsn, "examples.simple:registry", "--drain")
    assert code == 0, err
    with psycopg.connect(flows_dsn) as tx:
        output = Client().get_run_output_tx(tx, key, dict)
    assert SIMPLE_OUTPUT.fullmatch(output["result"] + "\n")


def test_cron_fires_its_schedules_and_removes_them(dsn: str) -> None:
    code, out, err = run(
        [sys.executable, str(ROOT / "examples" / "cron.py")], FLOWS_DATABASE_URL=dsn
    )
    assert (code, err) == (0, "")
    assert [f"run {number} of 'often'" for number in (1, 2, 3)] == out.splitlines()[:3]
    assert one_row(dsn, "SELECT count(*) FROM flows.schedules") == (0,)


def test_census_counts_a_tree_counted_by_hand(flows_dsn: str, tree: Path) -> None:
    order = json.dumps({"root": str(tree), **ORDER})
    code, out, err = supervise(
        flows_dsn, "examples.census:registry", "--begin", f"census={order}", "--drain"
    )
    assert code == 0, err
    for shown in ("alpha", "Chooser.choose", "beta/rounded.py:2", "SyntaxError"):
        assert shown in out
    query = "SELECT workflow_name_shard, run_id FROM flows.runs WHERE workflow_name = 'census'"
    key = RunKey(*one_row(flows_dsn, query))
    with psycopg.connect(flows_dsn) as tx:
        result = Client().get_run_output_tx(tx, key, CensusResult)
    check_result(result, str(tree))


def check_result(result: CensusResult, root: str) -> None:
    totals = (result.root, result.files, result.files_not_measured, result.code_lines)
    assert totals == (root, 7, 1, 31)
    # simple 1, choose 9, wait 2, and three of 4
    assert (result.functions, result.mean_complexity) == (6, 4.0)
    assert [
        (p.package, p.files, p.lines, p.functions, p.mean_complexity, p.max_complexity)
        for p in result.packages
    ] == [
        ("alpha", 3, 16, 3, 5.0, 9),
        ("beta", 3, 12, 2, 4.0, 4),
        ("(top level)", 1, 3, 1, 1.0, 1),
    ]
    assert [(c.complexity, c.lines, c.function, c.where) for c in result.most_complex] == [
        (9, 6, "Chooser.choose", "alpha/branches.py:3"),
        (4, 7, "total", "alpha/total.py:2"),
        (4, 7, "renamed", "beta/deep/total.py:2"),
        (4, 7, "rounded", "beta/rounded.py:2"),
        (2, 3, "Chooser.wait", "alpha/branches.py:10"),
        (1, 3, "simple", "top.py:5"),
    ]
    (family,) = result.near_duplicates
    assert (family.copies, family.extra_lines) == (3, 14)
    assert family.function == "total"
    assert family.where == "alpha/total.py:2; beta/deep/total.py:2; beta/rounded.py:2"
    # `return acc` against `return round(acc)`: 26 and 28 shingles, all but one and three shared.
    assert family.similarity == round(25 / 29, 2)
    assert (result.near_duplicate_families, result.near_duplicate_extra_lines) == (1, 14)
    assert [(n.file, n.reason) for n in result.not_measured] == [("beta/broken.py", "SyntaxError")]


def test_a_census_of_nothing_fails_with_the_reason(flows_dsn: str, tmp_path: Path) -> None:
    order = json.dumps({"root": str(tmp_path), "quiet_seconds": 0})
    code, _, err = supervise(
        flows_dsn, "examples.census:registry", "--begin", f"census={order}", "--drain"
    )
    assert code == 1
    assert f"no Python files under {tmp_path}" in err


def test_a_task_that_fails_for_good_fails_its_census(flows_dsn: str, tree: Path) -> None:
    order = CensusOrder(root=str(tree), quiet_seconds=0)
    with psycopg.connect(flows_dsn) as tx:
        create_tables(tx)
        key = Client().begin_tx(tx, registry.get("census"), order)
        # A row in the way of the one that the measure run wants to write, whenever it tries.
        tx.execute("INSERT INTO census_files VALUES (%s, 'top.py', 0, NULL)", (key.run_id,))
    assert supervise(flows_dsn, "examples.census:registry", "--drain")[0] == 1
    with psycopg.connect(flows_dsn) as tx:
        status = Client().get_run_status_tx(tx, key)
    assert status.status == "failed"
    assert status.error is not None
    assert "a measure run failed: UniqueViolation: " in status.error


def test_a_file_that_is_gone_is_part_of_the_result(flows_dsn: str, tree: Path) -> None:
    (tree / "gone.py").symlink_to(tree / "top.py")
    order = CensusOrder(root=str(tree), quiet_seconds=0)
    with psycopg.connect(flows_dsn) as tx:
        create_tables(tx)
        key = Client().begin_tx(tx, registry.get("census"), order)
    with Worker(registry.only(["census"]), flows_dsn) as worker:
        assert worker.process_one()
    (tree / "gone.py").unlink()
    code, _, err = supervise(flows_dsn, "examples.census:registry", "--drain")
    assert code == 0, err
    with psycopg.connect(flows_dsn) as tx:
        result = Client().get_run_output_tx(tx, key, CensusResult)
    assert [(file.file, file.reason) for file in result.not_measured] == [
        ("beta/broken.py", "SyntaxError"),
        ("gone.py", "FileNotFoundError"),
    ]


def test_two_censuses_at_once_do_not_mix(flows_dsn: str, tree: Path) -> None:
    order = {"root": str(tree), **ORDER}
    begins = [
        option
        for limit in (7, 3)
        for option in ("--begin", f"census={json.dumps({**order, 'limit': limit})}")
    ]
    code, _, err = supervise(flows_dsn, "examples.census:registry", *begins, "--drain")
    assert code == 0, err
    assert one_row(
        flows_dsn,
        "SELECT array_agg((output_json->>'files')::int ORDER BY created_at, run_id)"
        " FROM flows.runs WHERE workflow_name = 'census'",
    ) == ([7, 3],)
