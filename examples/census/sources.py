"""Which files a census counts, and in which portions they are measured."""

from __future__ import annotations

import hashlib
import logging
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from flows import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CensusOrder", "Listing", "SourceFile", "batches", "list_sources"]

logger = logging.getLogger(__name__)


class CensusOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to count; `{}` counts the standard library of the running Python.

    Attributes:
        root: the folder; None is the standard library.
        limit: at most so many files, the first by path; None is all.
        exclude: names of folders that are not entered, at any depth.
        batch_kilobytes: about how much source one `measure` run takes.
        min_tokens: functions of fewer tokens are not compared with others.
        similarity_percent: from which similarity on two functions are near-duplicates.
        compare_parts: into how many `compare` runs the comparison is cut, at most.
        quiet_seconds: the tree must not have changed for so long before it is counted.
        top: rows of each list of the result.
    """

    root: str | None = None
    limit: int | None = None
    exclude: tuple[str, ...] = ("__pycache__", "dist-packages", "node_modules", "site-packages")
    batch_kilobytes: int = 512
    min_tokens: int = 50
    similarity_percent: int = 80
    compare_parts: int = 4
    quiet_seconds: float = 1.0
    top: int = 15

    def check(self) -> None:
        """Refuse what cannot be counted.

        Raises:
            TerminalError: a number out of its range; says which.
        """
        ranges = {
            "limit": (1 if self.limit is None else self.limit, 1, 10_000_000),
            "batch_kilobytes": (self.batch_kilobytes, 1, 1_000_000),
            "min_tokens": (self.min_tokens, 10, 1_000_000),
            "similarity_percent": (self.similarity_percent, 50, 100),
            "compare_parts": (self.compare_parts, 1, 1_000),
            "quiet_seconds": (self.quiet_seconds, 0, 86_400),
            "top": (self.top, 1, 10_000),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise TerminalError(f"{name} must be from {low} to {high}, not {value}")


class SourceFile(msgspec.Struct, frozen=True, array_like=True):
    """One file: its path under the root, with `/`, and its size in bytes."""

    path: str
    size: int


class Listing(msgspec.Struct, frozen=True):
    """What a folder holds.

    Attributes:
        root: the folder.
        fingerprint: changes with any file's path, size or time of modification.
        files: the files, by path.
    """

    root: str
    fingerprint: str
    files: list[SourceFile]


def list_sources(order: CensusOrder) -> Listing:
    """List the Python files that an order asks for.

    Raises:
        TerminalError: the root is not a folder.
    """
    root = Path(order.root or sysconfig.get_path("stdlib")).absolute()
    if not root.is_dir():
        raise TerminalError(f"root {str(root)!r} is not a folder")
    found = sorted(_walk(root, frozenset(order.exclude)))[: order.limit]
    digest = hashlib.sha256()
    for path, size, modified_ns in found:
        digest.update(f"{path}\0{size}\0{modified_ns}\n".encode())
    return Listing(
        str(root), digest.hexdigest(), [SourceFile(path, size) for path, size, _ in found]
    )


def _walk(root: Path, exclude: frozenset[str]) -> Iterator[tuple[str, int, int]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in exclude and name[0] != "."]
        for name in names:
            file = Path(folder, name)
            if file.suffix != ".py" or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            if not path.isprintable():
                # A name that is not UTF-8 is neither JSON nor Postgres text.
                logger.warning("left out %a: its name cannot be stored", path)
                continue
            status = file.stat()
            yield path, status.st_size, status.st_mtime_ns


def batches(files: Iterable[SourceFile], batch_bytes: int) -> list[list[str]]:
    """Cut files into portions of about `batch_bytes`, in their order; no portion is empty."""
    cut: list[list[str]] = []
    filled = batch_bytes
    for file in files:
        if filled >= batch_bytes:
            cut.append([])
            filled = 0
        cut[-1].append(file.path)
        filled += file.size
    return cut
