"""What Python's own allocator holds free: memory that the next block can use without any growth."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from pytest_imu.core.units import MIB

NOTEWORTHY_BYTES = MIB
"""How far the RSS must stand above the lowest seen before anybody asks: under it there is little to
reuse, and asking costs 0.25-3 ms."""
MAX_SHARE = 0.02
"""How much of the time since the first asking may go into asking."""
GRACE_NS = 50_000_000
REUSE_BYTES_PER_SECOND = 4 * 2**30
"""Nobody fills memory faster: what a block of 10 µs can have reused is nothing worth a word."""

_FREE_BLOCKS = re.compile(rb"bytes in available blocks\s*=\s*([\d,]+)")
_FREE_POOLS = re.compile(rb"unused pools \* \d+ bytes\s*=\s*([\d,]+)")


def parse_malloc_stats(text: bytes) -> int | None:
    """Return the free bytes in what `sys._debugmallocstats()` prints; None where it says nothing."""
    found = [pattern.search(text) for pattern in (_FREE_BLOCKS, _FREE_POOLS)]
    if None in found:
        return None
    return sum(int(match[1].replace(b",", b"")) for match in found if match is not None)


def free_in_pymalloc() -> int | None:
    """Return how much CPython's small-object allocator holds free, in bytes; None where unknown."""
    text = _malloc_stats()
    return None if text is None else parse_malloc_stats(text)


def _malloc_stats() -> bytes | None:
    """Return what `sys._debugmallocstats()` prints, which goes to the process's stderr alone.

    The function behind it, which CPython exports for tools like this one, writes into memory as well:
    no other thread's words to stderr are caught in between.
    """
    try:
        import ctypes  # noqa: PLC0415 - 4 ms, needed only where somebody asks

        tell = ctypes.PyDLL(None)._PyObject_DebugMallocStats  # noqa: SLF001 - there is no public one
        libc = ctypes.CDLL(None)
        open_memstream, fclose, free = libc.open_memstream, libc.fclose, libc.free
    except (ImportError, OSError, AttributeError, TypeError):
        return None  # another interpreter, or Windows
    open_memstream.restype = ctypes.c_void_p
    tell.argtypes = fclose.argtypes = free.argtypes = [ctypes.c_void_p]
    text, length = ctypes.c_void_p(), ctypes.c_size_t()
    stream = open_memstream(ctypes.byref(text), ctypes.byref(length))
    if not stream:
        return None
    tell(stream)
    fclose(stream)
    try:
        return ctypes.string_at(text.value or 0, length.value)
    finally:
        free(text)


class ReusableGauge:
    """Asks what is reusable as a window opens, where that may matter and while it costs little."""

    def __init__(
        self,
        *,
        rss_bytes: Callable[[], int],
        free_bytes: Callable[[], int | None] = free_in_pymalloc,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._rss_bytes = rss_bytes
        self._free_bytes = free_bytes
        self._clock_ns = clock_ns
        self._lowest_bytes: int | None = None
        self._first_ns: int | None = None
        self._spent_ns = 0

    def read(self) -> int | None:
        """Return the reusable bytes, 0 where there can be next to none, None where nobody asked."""
        try:
            rss_bytes = self._rss_bytes()
        except (OSError, ValueError):  # the window, which reads the same, says why
            return None
        if self._lowest_bytes is None or rss_bytes < self._lowest_bytes:
            self._lowest_bytes = rss_bytes
        if rss_bytes - self._lowest_bytes <= NOTEWORTHY_BYTES:
            return 0
        start_ns = self._clock_ns()
        if self._first_ns is None:
            self._first_ns = start_ns
        if self._spent_ns > GRACE_NS + MAX_SHARE * (start_ns - self._first_ns):
            return None
        free_bytes = self._free_bytes()
        self._spent_ns += self._clock_ns() - start_ns
        return free_bytes


def may_be_reused(reusable_bytes: int | None, duration_ns: int) -> int:
    """Return how much of it a block of this duration can have used at the most, in bytes."""
    return min(reusable_bytes or 0, duration_ns * REUSE_BYTES_PER_SECOND // 1_000_000_000)
