"""Hooks of MkDocs: what pages link to outside docs/ has its place in the site too.

On the pages links are as they work in the repository (`../examples/deploy/alerts.yaml`). Here each
is followed from there, and leads to the same file in the site; a folder, to its README.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
BESIDE = (
    "CHANGELOG.md",
    "benchmarks/results/report.md",
    *(f"benchmarks/results/W{number}.png" for number in range(1, 13)),
    "benchmarks/results/W12_backlog.png",
    "examples/README.md",
    "examples/citus/README.md",
    "examples/citus/compose.yaml",
    "examples/deploy/Dockerfile",
    "examples/deploy/README.md",
    "examples/deploy/alerts.yaml",
    "examples/deploy/compose.yaml",
    "examples/deploy/dashboard.json",
    "examples/deploy/flows.service",
)
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files from beside docs/ under their own paths."""
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links lead where their target is in the site."""
    del config, files
    uri = page.file.src_uri
    here = (ROOT if uri in BESIDE else ROOT / "docs") / uri

    def follow(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here.parent / link[1]))
        if target.is_dir() and (target / "README.md").exists():
            target /= "README.md"
        inside = target.is_relative_to(ROOT / "docs")
        place = target.relative_to(ROOT / "docs" if inside else ROOT)
        return Path(os.path.relpath(place, Path(uri).parent)).as_posix()

    return LINK.sub(follow, markdown)
