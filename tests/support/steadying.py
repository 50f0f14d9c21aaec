"""Keeps still what would move this process's memory while a test measures it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_imu.core.memory.glibc import find_malloc
from pytest_imu.core.memory.trim import find_free_blocks
from pytest_imu.core.units import MIB
from pytest_imu.isolation.file_pages import find_madvise

FILE_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ [1-9]\d* +/(?!dev/)", re.MULTILINE)
LARGE_BYTES = 32 * MIB
"""Up to this much glibc serves from its heap, once a block as large was freed; what is larger it maps,
unless a hole in the heap has room for it."""


def map_files_again() -> None:
    """Map the code that this process has not used for a minute: some machines page it out."""
    advise = find_madvise()
    if advise is not None:
        for start, end in FILE_MAPPING.findall(Path("/proc/self/maps").read_text(encoding="utf-8")):
            advise(int(start, 16), int(end, 16) - int(start, 16))


@contextlib.contextmanager
def no_large_holes() -> Iterator[None]:
    """Take, untouched, the large holes that glibc's heap has, and give them back in the end."""
    free_blocks = find_free_blocks()
    found = find_malloc()
    if free_blocks is None or found is None:
        yield
        return
    malloc, free = found
    taken = list(_taken_holes(malloc, free, free_blocks))
    yield
    for block in taken:
        free(block)


def _taken_holes(
    malloc: Callable[[int], int],
    free: Callable[[int], object],
    free_blocks: Callable[[], tuple[int, int]],
) -> Iterator[int]:
    while True:
        before_bytes, _ = free_blocks()
        block = malloc(LARGE_BYTES + 1)
        if before_bytes - free_blocks()[0] < LARGE_BYTES:
            free(block)
            return
        yield block
