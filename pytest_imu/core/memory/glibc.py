"""C's malloc and free, and what glibc's say of themselves: bytes given out, and bytes held free."""

from __future__ import annotations

import functools
import re
from array import array
from collections.abc import Callable
from typing import Any

from pytest_imu.core.memory.memstream import c_function

CHUNK_HEADER_BYTES = 8
CACHED_SIZES_BYTES = range(24, 1033, 16)
"""Freed blocks of these sizes are kept for the thread that freed them, and count as given out."""
TRIES = 100
"""So many blocks are asked for to fill a size: a heap may have many holes of the next."""
_NUMBER = re.compile(r"\d+")
_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


@functools.cache  # this and the others: a test may have mocked ctypes by then
def find_malloc() -> tuple[Any, Any] | None:  # Any: as in c_function()
    """Return malloc and free, which take and return numbers; None where there is no C library to ask."""
    malloc, free = c_function("malloc"), c_function("free")
    if malloc is None or free is None:
        return None
    import ctypes

    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    return malloc, free


@functools.cache
def find_mallinfo() -> Any:  # Any: as in c_function()
    """Return mallinfo2, whose result has glibc's names for its fields; None before glibc 2.33."""
    mallinfo = c_function("mallinfo2")
    if mallinfo is None:
        return None
    import ctypes

    class MallInfo(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]

    mallinfo.restype = MallInfo
    return mallinfo


@functools.cache
def find_given_out() -> Callable[[], int] | None:
    """Return what tells how many bytes C code has asked for and not freed; None where nothing does.

    By `mallinfo2`, which counts a thread's cache as given out: freed blocks, some of each size. How many
    are there depends on all that the thread has done. So this thread's cache is filled first: 0.6 ms.
    """
    found, mallinfo, usable_size = find_malloc(), find_mallinfo(), c_function("malloc_usable_size")
    if found is None or mallinfo is None or usable_size is None:
        return None
    import ctypes

    malloc, free = found
    usable_size.argtypes, usable_size.restype = [ctypes.c_void_p], ctypes.c_size_t
    tell_version = c_function("gnu_get_libc_version")
    tell_version.restype = ctypes.c_char_p
    most = cached_blocks(tell_version().decode())
    held = array("Q", bytes(8 * TRIES))  # of a list the objects would stay, and be blocks themselves

    def fill(size: int) -> None:
        exact = tries = 0
        while exact < most and tries < TRIES:
            held[tries] = block = malloc(size) or 0
            exact += usable_size(block) == size  # a hole may be larger, by less than a block of its own
            tries += 1
        for place in range(tries):
            free(held[place])

    def given_out() -> int:
        for size in CACHED_SIZES_BYTES:
            fill(size)
        info = mallinfo()
        return int(info.uordblks + info.hblkhd)

    return given_out


def cached_blocks(version: str) -> int:
    """Return how many freed blocks of each size a glibc of this *version* keeps."""
    return 7 if [int(number) for number in _NUMBER.findall(version)[:2]] < [2, 43] else 16
