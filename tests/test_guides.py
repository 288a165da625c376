"""The guides' code runs as it stands there, and their commands are ones that there are."""

from __future__ import annotations

import re
import shlex
import sys
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
import psycopg
import pytest

from flows.cli import cli
from flows.testing import Workbench
from tests.citus import not_on_citus
from tests.doc_blocks import blocks_of, files_of
from tests.integration.command import flows
from tests.source_tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
ON_ONE_SERVER = "its tables are on one server"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Import a file that a page shows, from a folder that is the present one."""
    monkeypatch.chdir(tmp_path)

    def load(page: str, name: str) -> ModuleType:
        text = files_of(DOCS / page)[name]
        (tmp_path / name).write_text(text, "utf-8")
        module = ModuleType(name.removesuffix(".py"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, name, "exec"), module.__dict__)
        return module

    return load


def test_a_film_is_rendered_in_parts(flows_dsn: str, load: Any) -> None:
    pipeline = load("guide_cpu.md", "pipeline.py")
    with Workbench(flows_dsn, pipeline.registry) as bench:
        key = bench.client.begin("film", [1, 2, 3])
        bench.drain()
        parts = [sum(n * n for n in range(count * 1000)) % 1_000_003 for count in (1, 2, 3)]
        assert bench.client.output(key, list[int]) == parts
        with bench.client.transaction() as tx:
            count = "SELECT count(*) FROM flows.runs WHERE workflow_name = 'render'"
            assert tx.execute(count).fetchone() == (3,)


@not_on_citus(ON_ONE_SERVER)
def test_an_order_takes_a_piece_while_there_is_one(flows_dsn: str, load: Any) -> None:
    shop = load("guide_transactions.md", "shop.py")
    with psycopg.connect(flows_dsn) as tx:
        tx.execute("CREATE TABLE orders (id int, item text, state text)")
        tx.execute("CREATE TABLE stock (item text, pieces int)")
        tx.execute("INSERT INTO stock VALUES ('lamp', 1)")
    with Workbench(flows_dsn, shop.registry) as bench:
        keys = []
        for order in (1, 2):
            with bench.client.transaction() as tx:
                keys.append(shop.place(tx, order, "lamp"))
                assert shop.place(tx, order, "lamp") == keys[-1]
        bench.drain()
        outputs = [bench.client.output(key, str) for key in keys]
        assert outputs[0].startswith("1/")
        assert outputs[1] == "sold out"
        with bench.client.transaction() as tx:
            assert tx.execute("SELECT pieces FROM stock").fetchone() == (0,)
            paid = "SELECT DISTINCT state FROM orders WHERE id = 1"
            assert tx.execute(paid).fetchone() == ("paid",)


@not_on_citus(ON_ONE_SERVER)
def test_a_statement_that_may_fail_stands_in_a_savepoint(flows_dsn: str, load: Any) -> None:
    shop = load("guide_transactions.md", "shop.py")
    with psycopg.connect(flows_dsn) as tx:
        tx.execute("CREATE TABLE customers (email text PRIMARY KEY)")
    with Workbench(flows_dsn, shop.registry) as bench:
        keys = [bench.client.begin("welcome", "ada@example.org") for _ in range(2)]
        bench.drain()
        assert [bench.client.output(key, bool) for key in keys] == [True, False]
    assert "careful order" in {workflow.name for workflow in shop.registry}


def test_a_payment_outlasts_an_outage_and_a_refusal_is_final(flows_dsn: str, load: Any) -> None:
    patience = load("guide_retries.md", "patience.py")
    with Workbench(flows_dsn, patience.registry) as bench:
        key = bench.client.begin("payment", "of Ada")
        bench.drain()
        assert bench.client.status(key).status == "sleeping"
        assert len(patience.asked) == 3
        bench.advance(timedelta(seconds=59))
        bench.drain()
        assert len(patience.asked) == 3
        bench.advance(timedelta(seconds=1))
        bench.drain()
        assert bench.client.output(key, str) == "receipt 5"
        assert bench.client.status(key).attempts == 1
        refused = bench.client.begin("payment", "stolen")
        bench.drain()
        assert bench.client.status(refused).status == "failed"
        assert patience.asked.count("stolen") == 1


def test_changed_code_is_told_by_replay(flows_dsn: str, load: Any, tmp_path: Path) -> None:
    before = load("guide_changing_code.md", "before.py")
    with Workbench(flows_dsn, before.registry) as bench:
        key = bench.client.begin("invoice", 7)
        bench.drain()
        assert bench.client.output(key, str) == "invoice over 70"
    load("guide_changing_code.md", "after.py")
    done = flows("replay", "after:registry", str(key), "--dsn", flows_dsn, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (promised,) = [b.text for b in blocks_of(DOCS / "guide_changing_code.md") if b[0] == "text"]
    assert done.stdout == promised


def test_a_version_is_kept_as_a_memo(flows_dsn: str, load: Any) -> None:
    both = load("guide_changing_code.md", "both.py")
    with Workbench(flows_dsn, both.registry) as bench:
        key = bench.client.begin("invoice", 7)
        bench.drain()
        assert bench.client.output(key, str) == "invoice over 7000 cents"


def test_what_moves_over_runs(flows_dsn: str, load: Any) -> None:
    seam = load("moving_over.md", "seam.py")
    for name in ("order.py", "approved.py", "approved_in_time.py"):
        module = load("moving_over.md", name)
        with Workbench(flows_dsn, module.registry) as bench:
            with bench.client.transaction() as tx:
                key = seam.place(tx, 7) if name == "order.py" else None
            key = key or bench.client.begin("order", 8)
            bench.drain()
            if name != "order.py":
                bench.client.publish_event(key, "Approved", "Ada")
                bench.drain()
            approved = "" if name == "order.py" else ", approved by Ada"
            assert bench.client.output(key, str) == f"receipt {7 if not approved else 8}{approved}"


INLINE = re.compile(r"`(flows\s+[a-z][^`]*)`")


def commands_of(page: Path) -> list[str]:
    """Return the commands of flows that a page types, and those that its sentences name."""
    blocks = blocks_of(page)
    typed = [line for b in blocks if b.language == "sh" for line in b.text.splitlines()]
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = [" ".join(command.split()) for command in INLINE.findall(prose)]
    return [line for line in typed if line.startswith("flows ")] + named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_have_these_options(page: Path) -> None:
    for line in commands_of(page):
        arguments = shlex.split(line, comments=True)[1:]
        command: click.Command = cli
        context = click.Context(cli, info_name="flows")
        while isinstance(command, click.Group) and arguments:
            name, found, arguments = command.resolve_command(context, arguments)
            assert found is not None, line
            command = found
            context = click.Context(command, parent=context, info_name=name)
        known = {option for each in command.get_params(context) for option in each.opts}
        options = {each.partition("=")[0] for each in arguments if each.startswith("--")}
        assert options <= known, line


def test_there_are_commands_on_the_pages() -> None:
    assert sum(len(commands_of(page)) for page in PAGES) > 100
