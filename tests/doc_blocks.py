"""The code blocks of a page of the documentation, in their order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Block", "blocks_of", "files_of"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """One block.

    Attributes:
        language: as the page says, `python`, `sh` or `text`.
        text: what is in it.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, told by a comment in its first line."""
        found = _FILE.match(self.text)
        return None if found is None else found[1]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text("utf-8"))]


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page shows: a block without a name goes on with the one before."""
    files: dict[str, str] = {}
    name = ""
    for block in blocks_of(page):
        if block.language == "python":
            name = block.file or name
            files[name] = files.get(name, "") + "\n\n" + block.text
    return files
