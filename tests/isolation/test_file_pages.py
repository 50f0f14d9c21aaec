"""File pages that a fork loses: which ones a process has, and how its child maps them again."""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.units import MIB
from pytest_imu.isolation.file_pages import (
    FilePages,
    Mapping,
    find_madvise,
    present_mappings,
    resident_file_pages,
)

InFork = Callable[[Callable[[], object]], Any]
PAGE = mmap.PAGESIZE
FILE_BYTES = 4 * MIB

PRESENT = 1 << 63
SWAPPED = 1 << 62
OF_A_FILE = 1 << 61
WRITTEN_LATELY = 1 << 55
SHOWN = PRESENT | OF_A_FILE

needs_populate = pytest.mark.skipif(
    not sys.platform.startswith("linux") or find_madvise() is None,
    reason="needs_populate: this kernel cannot map pages on request: not Linux 5.14 or newer",
)


def line(start_page: int, pages: int, *, rights: str = "r-xp", file: str = "/usr/lib/libz.so") -> bytes:
    """Return a line as /proc/PID/maps has it."""
    inode = 131 if file.startswith("/") else 0
    place = f"{start_page * PAGE:08x}-{(start_page + pages) * PAGE:08x}"
    return f"{place} {rights} 00002000 fe:00 {inode}{' ' * 20}{file}".encode()


def found(
    lines: list[bytes], entries: dict[int, int], *, max_pages: int = 100
) -> list[tuple[bytes, list[tuple[int, int]]]]:
    """Return the mappings that are found, with their runs in pages; *entries* are the pagemap's."""

    def read_pagemap(offset: int, length: int) -> bytes:
        numbers = range(offset // 8, (offset + length) // 8)
        return struct.pack(f"={len(numbers)}Q", *(entries.get(number, 0) for number in numbers))

    maps = b"\n".join(lines) + b"\n"
    return [
        (mapping.line, [(start // PAGE, length // PAGE) for start, length in mapping.runs])
        for mapping in present_mappings(maps, read_pagemap, max_bytes=max_pages * PAGE)
    ]


def test_present_pages_are_found_as_runs() -> None:
    """Neighbouring pages make one run, gaps and ends of the mapping divide them."""
    first, second = line(16, 8), line(24, 2, rights="r--s", file="/data (deleted)")
    entries = dict.fromkeys((16, 17, 19, 22, 23, 24), SHOWN) | {26: SHOWN}
    assert [(first, [(16, 2), (19, 1), (22, 2)]), (second, [(24, 1)])] == found([first, second], entries)


@pytest.mark.parametrize(
    ("entry", "is_found"),
    [
        (SHOWN, True),
        (SHOWN | WRITTEN_LATELY, True),
        (SHOWN | 0x1234, True),  # root sees which page it is
        (PRESENT, False),  # written to: the process's own
        (SWAPPED | OF_A_FILE, False),
        (OF_A_FILE, False),
        (0, False),
    ],
)
def test_only_pages_that_show_a_file(entry: int, is_found: bool) -> None:  # noqa: FBT001 - a case's column
    """A page counts where it is there and still the file's."""
    assert is_found == bool(found([line(16, 1)], {16: entry}))


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (line(16, 1), True),
        (line(16, 1, rights="rw-p"), True),
        (line(16, 1, file="/a path/with spaces"), True),
        (line(16, 1, file="/dev/shm/shared"), True),  # noqa: S108 - no file is made
        (line(16, 1, file="/dev/nvidia0"), False),
        (line(16, 1, rights="---p"), False),
        (line(16, 1, rights="-w-p"), False),
        (line(16, 1, file=""), False),
        (line(16, 1, file="[heap]"), False),
        (line(16, 1, file="anon_inode:[perf_event]"), False),
        (line(16, 2**19), False),  # 2 GiB
        (b"nonsense", False),
    ],
)
def test_only_readable_files(text: bytes, is_found: bool) -> None:  # noqa: FBT001 - a case's column
    """Devices, anonymous memory, what may not be read and what is too large are left out."""
    assert is_found == bool(found([text], {16: SHOWN}))


def test_bound_leaves_out_what_does_not_fit() -> None:
    """A mapping that would pass the bound is left out whole; smaller ones after it still fit."""
    sizes = (2, 5, 3, 1)
    lines = [line(16 * number, pages) for number, pages in enumerate(sizes, 1)]
    entries = dict.fromkeys(range(100), SHOWN)
    assert [lines[0], lines[2]] == [text for text, _ in found(lines, entries, max_pages=5)]


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[mmap.mmap]:
    """Map a file of known size for reading, and use every page of it."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * FILE_BYTES)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        use(memory)
        yield memory


def use(memory: mmap.mmap) -> None:
    """Read every page."""
    assert b"x" * (FILE_BYTES // PAGE) == memory[::PAGE]


def file_bytes() -> int:
    """Return how much of this process's RSS shows files."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(text.partition("RssFile:")[2].split()[0]) * 1024


def growth_by_use(memory: mmap.mmap) -> int:
    """Return what reading the mapping adds to the RSS."""
    before = file_bytes()
    use(memory)
    return file_bytes() - before


@needs_populate
@pytest.mark.needs_fork
def test_child_grows_no_more(mapped: mmap.mmap, in_fork: InFork) -> None:
    """A forked child grows by a file that its parent has used, unless it has mapped it again."""
    pages = resident_file_pages()

    def after_mapping_again() -> int:
        pages.map_again()
        return growth_by_use(mapped)

    assert pytest.approx(FILE_BYTES, abs=MIB // 4) == in_fork(lambda: growth_by_use(mapped))
    assert pytest.approx(0, abs=MIB // 4) == in_fork(after_mapping_again)


@needs_populate
@pytest.mark.needs_fork
@pytest.mark.usefixtures("mapped")
def test_child_has_what_the_parent_had(in_fork: InFork) -> None:
    """Mapping again gives a child every single page that its parent had."""
    before = {mapping.line: pages_of(mapping) for mapping in resident_file_pages().mappings}
    pages = resident_file_pages()

    def missing(*, again: bool) -> int:
        if again:
            pages.map_again()
        after = {mapping.line: pages_of(mapping) for mapping in resident_file_pages().mappings}
        return sum(len(had - after.get(text, set())) for text, had in before.items())

    assert FILE_BYTES // PAGE <= in_fork(lambda: missing(again=False))
    assert 0 == in_fork(lambda: missing(again=True))


def pages_of(mapping: Mapping) -> set[int]:
    """Return the addresses of the pages."""
    return {page for start, length in mapping.runs for page in range(start, start + length, PAGE)}


@pytest.mark.parametrize(
    "now",
    [
        b"",
        line(16, 8, file=""),  # anonymous memory in its place
        line(16, 8, file="/usr/lib/libm.so"),
        line(16, 7),  # cut
        line(16, 8, rights="---p"),
    ],
)
def test_changed_mapping_is_left_alone(now: bytes) -> None:
    """Where the mapping is not what it was, nothing is done, and the others are mapped."""
    changed, other = line(16, 8), line(32, 8)
    pages = FilePages(
        mappings=(
            Mapping(line=changed, runs=((16 * PAGE, PAGE),)),
            Mapping(line=other, runs=((32 * PAGE, PAGE), (34 * PAGE, PAGE))),
        )
    )
    expected = [(32 * PAGE, PAGE), (34 * PAGE, PAGE)]
    assert expected == list(pages.runs_in(now + b"\n" + other + b"\n"))
    assert [(16 * PAGE, PAGE), *expected] == list(pages.runs_in(changed + b"\n" + other + b"\n"))


@needs_populate
def test_file_that_shrank_harms_nobody(tmp_path: Path) -> None:
    """Pages that lie behind a file's new end cannot be mapped, and that ends nothing."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * FILE_BYTES)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        use(memory)
        pages = resident_file_pages()
        assert [FILE_BYTES] == [
            one.present_bytes for one in pages.mappings if one.line.endswith(b"/data")
        ]
        os.truncate(path, PAGE)
        pages.map_again()
        assert b"x" == memory[:1]


def test_nothing_to_map_does_nothing() -> None:
    """Where the platform told nothing, mapping again is free of any effect."""
    FilePages().map_again()


@pytest.mark.skipif(sys.platform == "linux", reason="Linux tells")
def test_other_platforms_tell_nothing() -> None:
    """Without Linux's page map there are no pages to map again."""
    assert FilePages() == resident_file_pages()
