"""The file pages that a process has mapped, for its forked children to map again.

A fork copies no page tables of mappings that only show a file: the kernel would find the pages anyway,
at their first use. Until then they are not in the child's RSS, and after it they look like memory that
the child's own work needed: some 1.2 MiB of Python's, numpy's and the C library's code.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_imu.core.memory.memstream import c_function
from pytest_imu.core.units import MIB

MADV_POPULATE_READ = 22
"""Map pages for reading, without any signal where that fails: Linux 5.14 and newer."""
MAX_MAPPING_BYTES = 2**30
"""A larger mapping is data, not code, and asking which of its pages are there would take over 10 ms."""
MAX_BYTES = 256 * MIB
"""How much a child maps again at the most. What pytest and numpy have mapped, 16 MiB, takes it
2-3 ms, and 100 MiB more would take 5 ms more."""
ENTRY_BYTES = 8

_PRESENT = re.compile(rb"[\xa0-\xbf\xe0-\xff]+")
_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r\S+ [0-9a-f]+ \S+ [1-9]\d* +(?!/dev/(?!shm/))/.*$", re.MULTILINE
)
"""A line of maps about a readable file: one with an inode, and no device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The present pages of one mapping."""

    line: bytes
    """What /proc/self/maps says of it: place, rights and file."""
    runs: tuple[tuple[int, int], ...]
    """Addresses and lengths, in bytes."""

    @property
    def present_bytes(self) -> int:
        """How much of it was mapped."""
        return sum(length for _, length in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePages:
    """The file pages that were mapped at one time."""

    mappings: tuple[Mapping, ...] = ()

    def map_again(self) -> None:
        """Map them in this process, a child of the one that told them; never raises.

        A mapping that has gone or changed since is left alone, and so is all where the kernel cannot.
        """
        advise = find_madvise() if self.mappings else None
        if advise is None:
            return
        try:
            maps = _read_maps()
        except OSError:
            return
        for address, length in self.runs_in(maps):
            advise(address, length)

    def runs_in(self, maps: bytes) -> Iterator[tuple[int, int]]:
        """Yield the runs whose mappings stand unchanged in a text of /proc/PID/maps."""
        there = set(maps.splitlines())
        for mapping in self.mappings:
            if mapping.line in there:
                yield from mapping.runs


def resident_file_pages() -> FilePages:
    """Return which file pages this process has mapped; none where the platform does not tell.

    It is told by /proc/self/pagemap (Linux), and kept only where the kernel can map them again.
    """
    if find_madvise() is None:
        return FilePages()
    try:
        maps = _read_maps()
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            return FilePages(
                mappings=tuple(
                    present_mappings(maps, lambda at, length: os.pread(pagemap.fileno(), length, at))
                )
            )
    except OSError:
        return FilePages()


def present_mappings(
    maps: bytes, read_pagemap: Callable[[int, int], bytes], *, max_bytes: int = MAX_BYTES
) -> Iterator[Mapping]:
    """Yield the mappings of files that have present pages, those that fit into *max_bytes*.

    *maps* is a text of /proc/PID/maps; *read_pagemap* takes an offset and a length.
    """
    left_bytes = max_bytes
    for found in _MAPPING.finditer(maps):
        start, end = int(found[1], 16), int(found[2], 16)
        if end - start > MAX_MAPPING_BYTES:
            continue
        length = (end - start) // mmap.PAGESIZE * ENTRY_BYTES
        entries = read_pagemap(start // mmap.PAGESIZE * ENTRY_BYTES, length)
        mapping = Mapping(line=found[0], runs=tuple(_runs(start, entries)))
        if 0 < mapping.present_bytes <= left_bytes:
            left_bytes -= mapping.present_bytes
            yield mapping


def _runs(start: int, entries: bytes) -> Iterable[tuple[int, int]]:
    # Of an entry, the highest bit says that the page is there, the third that it shows a file: pages
    # that were written to are the process's own, and a fork copies their tables.
    high = entries[ENTRY_BYTES - 1 if sys.byteorder == "little" else 0 :: ENTRY_BYTES]
    for found in _PRESENT.finditer(high):
        yield start + found.start() * mmap.PAGESIZE, len(found[0]) * mmap.PAGESIZE


def find_madvise() -> Callable[[int, int], object] | None:
    """Return a function that maps the pages from an address on; None where the kernel has none."""
    madvise = c_function("madvise") if sys.platform == "linux" else None
    if madvise is None:
        return None
    import ctypes

    madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    # With no pages it does nothing, and says whether the kernel knows this advice.
    is_known = madvise(0, 0, MADV_POPULATE_READ) == 0
    return (lambda address, length: madvise(address, length, MADV_POPULATE_READ)) if is_known else None


def _read_maps() -> bytes:
    return Path("/proc/self/maps").read_bytes()
