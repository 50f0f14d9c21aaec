"""Ballast: blocks that fill what the allocators hold free, so that what comes next needs fresh memory.

A process that is to show what a piece of code needs must not have memory lying about that the code could
use unseen. What cannot be given back to the kernel is filled: by size class in Python's own allocator,
chunk by chunk in glibc's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_imu.core.memory.glibc import CHUNK_HEADER_BYTES, find_malloc
from pytest_imu.core.memory.memstream import written_by

SMALLEST_BYTES_OBJECT = 48
"""From this size class on `bytes` fill a block of any class exactly."""
BYTES_OVERHEAD = 33
"""What a bytes object takes besides its content."""
POOL_HEADER_BYTES = 48
LARGEST_CLASS_BYTES = 512
LARGEST_CHUNK_BYTES = 2**16
"""Of larger free chunks a trim leaves little more than two pages."""
MOST_CHUNKS = 500_000
"""No more are filled: 0.2 s."""

_CLASS = re.compile(rb"^ *\d+ +(\d+) +\d+ +\d+ +(\d+)$", re.MULTILINE)
_POOLS = re.compile(rb"^([\d,]+) unused pools \* ([\d,]+) bytes", re.MULTILINE)
_CHUNKS = re.compile(rb'<size from="\d+" to="(\d+)" total="\d+" count="(\d+)"/>')


def free_blocks(text: bytes) -> dict[int, int]:
    """Return how many blocks of each size are free, in bytes, by what `sys._debugmallocstats()` prints.

    A pool that no class uses counts as so many blocks of the largest class as it can hold.
    """
    blocks = {int(size): int(count) for size, count in _CLASS.findall(text)}
    pools = _POOLS.search(text)
    if pools is not None:
        count, pool_bytes = (int(number.replace(b",", b"")) for number in pools.groups())
        in_a_pool = (pool_bytes - POOL_HEADER_BYTES) // LARGEST_CLASS_BYTES
        blocks[LARGEST_CLASS_BYTES] = blocks.get(LARGEST_CLASS_BYTES, 0) + count * in_a_pool
    return blocks


def free_chunks(text: bytes) -> dict[int, int]:
    """Return how many chunks of each size glibc's main heap has free, by what `malloc_info()` writes."""
    main_heap = text.partition(b"</heap>")[0]
    chunks: dict[int, int] = {}
    for to, count in _CHUNKS.findall(main_heap):
        size_bytes = int(to) & ~7  # the lowest bits are flags
        if size_bytes <= LARGEST_CHUNK_BYTES:
            chunks[size_bytes] = chunks.get(size_bytes, 0) + int(count)
    return chunks


class Ballast:
    """What fills the free blocks; it stands as long as this object, and glibc's for ever."""

    def __init__(self) -> None:
        self._objects: list[list[object]] = []

    def fill(self) -> None:
        """Fill what is free now; nothing where the allocators do not tell."""
        _fill_chunks(free_chunks(written_by("malloc_info", 0) or b""))
        self._objects += objects_for(free_blocks(written_by("_PyObject_DebugMallocStats") or b""))


def objects_for(blocks: Mapping[int, int]) -> list[list[object]]:
    """Return as many objects as there are blocks, each of the size that takes a block of its class."""
    return [
        [_object_of(size_bytes) for _ in range(count)] for size_bytes, count in blocks.items() if count
    ]


def _object_of(size_bytes: int, *, number: float = 0.5) -> object:
    if size_bytes >= SMALLEST_BYTES_OBJECT:
        return bytes(size_bytes - BYTES_OVERHEAD)
    return object() if size_bytes == object().__sizeof__() else number + size_bytes


def _fill_chunks(chunks: Mapping[int, int]) -> None:
    found = find_malloc() if chunks else None
    if found is None:
        return
    malloc, _ = found
    left = MOST_CHUNKS
    for size_bytes, count in sorted(chunks.items()):  # from small to large: a large one may be split
        for _ in range(min(count, left)):
            malloc(size_bytes - CHUNK_HEADER_BYTES)
        left -= min(count, left)
