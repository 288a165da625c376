"""The site of the documentation: its reference is whole, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import psycopg
import pytest

import flows
import flows.testing
from flows.testing import Workbench
from tests.citus import not_on_citus
from tests.source_tree import ROOT, in_checkout

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
