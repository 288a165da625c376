"""Which files are counted, in which portions, and what an order may say."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import msgspec
import pytest

from examples.census.sources import CensusOrder, SourceFile, batches, list_sources
from flows import TerminalError


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("pass\n", "utf-8")


def paths(order: CensusOrder) -> list[str]:
    return [file.path for file in list_sources(order).files]


def test_python_files_are_listed_by_path_without_excluded_and_hidden_folders(
    tmp_path: Path,
) -> None:
    write(tmp_path, "b.py", "a/z.py", "a/y.py", "a/notes.txt", "site-packages/x.py", ".git/x.py")
    write(tmp_path, "a/skipped/x.py")
    root = str(tmp_path)
    assert paths(CensusOrder(root=root)) == ["a/skipped/x.py", "a/y.py", "a/z.py", "b.py"]
    assert paths(CensusOrder(root=root, exclude=("skipped", "site-packages"), limit=2)) == [
        "a/y.py",
        "a/z.py",
    ]


def test_the_default_is_the_standard_library() -> None:
    listing = list_sources(CensusOrder())
    assert listing.root == sysconfig.get_path("stdlib")
    found = {file.path for file in listing.files}
    assert {"ast.py", "json/decoder.py"} <= found
    assert not any("site-packages" in path for path in found)


def test_the_fingerprint_changes_with_content_and_with_the_list(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    order = CensusOrder(root=str(tmp_path))
    first = list_sources(order).fingerprint
    assert list_sources(order).fingerprint == first
    status = (tmp_path / "a.py").stat()
    os.utime(tmp_path / "a.py", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = list_sources(order).fingerprint
    write(tmp_path, "b.py")
    assert len({first, touched, list_sources(order).fingerprint}) == 3


def test_a_name_that_cannot_be_stored_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    try:
        (tmp_path / os.fsdecode(b"\xff.py")).write_text("pass\n", "utf-8")
    except OSError:
        pytest.skip("this file system keeps only UTF-8 names")
    assert paths(CensusOrder(root=str(tmp_path))) == ["a.py"]


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="is not a folder"):
        list_sources(CensusOrder(root=str(tmp_path / "missing")))


def test_batches_hold_about_so_many_bytes_and_every_file_once() -> None:
    sizes = [4, 4, 4, 10, 25, 0, 3]
    files = [SourceFile(f"{number}.py", size) for number, size in enumerate(sizes)]
    assert batches(files, 10) == [["0.py", "1.py", "2.py"], ["3.py"], ["4.py"], ["5.py", "6.py"]]
    assert batches([], 10) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"batch_kilobytes": 0},
        {"min_tokens": 4},
        {"similarity_percent": 101},
        {"compare_parts": 0},
        {"quiet_seconds": -1},
        {"top": 0},
    ],
)
def test_a_number_out_of_its_range_is_named(wrong: dict[str, int]) -> None:
    CensusOrder().check()
    with pytest.raises(TerminalError, match=next(iter(wrong))):
        msgspec.convert(wrong, CensusOrder).check()


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="rot"):
        msgspec.convert({"rot": "/src"}, CensusOrder)
