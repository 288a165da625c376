"""The site of the documentation: its reference is whole, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psycopg
import pytest

import flows
import flows.testing
from flows.cli import cli
from flows.cli.examination import expected_indexes
from flows.schema import SCHEMA_VERSION
from flows.testing import Workbench
from tests.citus import not_on_citus
from tests.source_tree import ROOT, in_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LOADED = {"audio": "src", "iframe": "src", "img": "src", "link": "href", "script": "src"}
"""Of which elements a browser fetches what they name, whatever the reader does."""


class Loads(HTMLParser):
    """Collects what a page has its browser fetch from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        url = dict(attrs).get(LOADED.get(tag, "")) or ""
        if re.match(r"(\w+:)?//", url):
            self.elsewhere.append(url)


def referred_names(module: str) -> list[str]:
    """Return the names of a module that pages of the reference describe."""
    pages = [page.read_text("utf-8") for page in sorted((DOCS / "reference").glob("*.md"))]
    pattern = rf"^::: {re.escape(module)}\.(\w+)$"
    return [name for page in pages for name in re.findall(pattern, page, re.MULTILINE)]


def test_the_reference_describes_every_public_name_once() -> None:
    described = [name for name in referred_names("flows") if name != "errors"]
    assert sorted(described) == sorted(flows.__all__)
    assert sorted(referred_names("flows.testing")) == sorted(flows.testing.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_on_a_page_is_python(page: Path) -> None:
    for number, block in enumerate(BLOCK.findall(page.read_text("utf-8")), 1):
        compile(block, f"{page.name}, block {number}", "exec")


@not_on_citus("its table is on one server")
def test_the_workflow_of_the_first_page_runs(flows_dsn: str) -> None:
    names: dict[str, object] = {}
    (block,) = BLOCK.findall((DOCS / "index.md").read_text("utf-8"))
    exec(block, names)
    registry = names["registry"]
    assert isinstance(registry, flows.Registry)
    with psycopg.connect(flows_dsn) as connection:
        connection.execute("CREATE TABLE bookings (item text)")
    with Workbench(flows_dsn, registry) as bench:
        key = bench.client.begin("order", "a lamp")
        bench.drain()
        bench.advance(timedelta(days=1))
        bench.client.publish_event(key, "Paid", "Ada")
        bench.drain()
        assert bench.client.output(key, str) == "booking of a lamp, paid by Ada"
        with bench.client.transaction() as tx:
            assert tx.execute("SELECT item FROM bookings").fetchall() == [("a lamp",)]


@in_checkout
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text("utf-8"))
        assert loads.elsewhere == [], page
    styles = [sheet.read_text("utf-8") for sheet in tmp_path.rglob("*.css")]
    assert [
        url for sheet in styles for url in re.findall(r"url\(\s*[\"']?(https?:[^)]*)", sheet)
    ] == []


def test_the_samples_of_commands_are_of_these_tables() -> None:
    page = (DOCS / "commands.md").read_text("utf-8")
    assert f"the tables are of version {SCHEMA_VERSION}\n" in page
    assert f"all {len(expected_indexes())} indexes are there and valid\n" in page
    assert f"up to date: version {SCHEMA_VERSION}\n" in page


def test_the_page_of_commands_lists_each_and_says_which_print_json() -> None:
    page = (DOCS / "commands.md").read_text("utf-8")
    listed = page.partition("```\n")[2].partition("```")[0]
    told = page.partition(" take `--json`.")[0].rpartition("\n\n")[2]
    takes_json = set()
    for path, command in commands(cli):
        assert f"flows {path.split()[0]} " in listed, path
        if any("--json" in parameter.opts for parameter in command.params):
            takes_json.add(path)
    assert set(re.findall(r"`([\w ]+)`", told)) == takes_json


def commands(group: click.Group, within: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{within} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, path)
        else:
            yield path, command
