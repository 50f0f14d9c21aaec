"""Giving freed memory back to the kernel before a window, so that the window's own need is seen."""

from __future__ import annotations

import functools
from collections.abc import Callable

from pytest_imu.core.memory.allowance import Allowance, process_allowance
from pytest_imu.core.memory.glibc import find_mallinfo
from pytest_imu.core.memory.window import ReadRss
from pytest_imu.core.units import MIB

PAID_NS_PER_MIB = 250_000
"""What a MiB given back may cost: 200 MiB took 20-40 ms, and writing them again takes longer."""
CHEAP_NS = 100_000
"""Up to this a trim is not charged: it is worth its price wherever the RSS has moved."""
NS_A_BLOCK = 100
"""What it takes glibc to look at a free block: 5 ms for 50,000. Two looks at a clock would cost more."""
KEPT_BYTES = 64 * 1024
"""What stays at the top of the heap: with nothing left there the next small allocation has to ask the
kernel for it again, which made a window twice as dear."""


@functools.cache
def find_malloc_trim() -> Callable[[], object] | None:
    """Return glibc's malloc_trim as a function, or None where there is none (musl, macOS)."""
    try:
        import ctypes

        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    malloc_trim.argtypes = [ctypes.c_size_t]
    return functools.partial(malloc_trim, KEPT_BYTES)


def find_free_blocks() -> Callable[[], tuple[int, int]] | None:
    """Return a function that tells the bytes that glibc holds free, and the number of their blocks.

    By `mallinfo2`, which counts free blocks without looking at their pages: what a trim gave back too.
    None where there is none (before glibc 2.33).
    """
    mallinfo = find_mallinfo()
    if mallinfo is None:
        return None

    def free_blocks() -> tuple[int, int]:
        found = mallinfo()
        return found.fordblks, found.ordblks  # all free blocks together, and how many

    return free_blocks


class Trimmer:
    """Calls malloc_trim where that may matter and while it pays.

    On a tidy heap it costs 1-10 µs. Where it gives memory back its time is paid for: without it the
    next window would reuse that memory and measure nothing. On a fragmented heap it may scan for
    nothing, 37 ms at 4 GiB: such unpaid time is charged to the process's allowance.
    """

    def __init__(
        self,
        *,
        malloc_trim: Callable[[], object] | None,
        allowance: Allowance,
        free_blocks: Callable[[], tuple[int, int]] | None = None,
        worth_bytes: int = KEPT_BYTES,
    ) -> None:
        """*free_blocks* tells how much is free; without it any move of the RSS is a reason to trim.

        Where it tells, less than *worth_bytes* is none.
        """
        self._worth_bytes = worth_bytes
        self._malloc_trim = malloc_trim
        self._allowance = allowance
        self._free_blocks = free_blocks
        self._settled_bytes: int | None = None
        """Where the RSS stood after the last trim."""
        self._least_free_bytes = 0
        """The least that was free since then: what is more has been freed, and not been given back."""
        self._asking_is_dear = False
        """Whether there are so many free blocks that asking is charged."""

    @property
    def available(self) -> bool:
        """Whether this platform can trim at all."""
        return self._malloc_trim is not None

    def settled_rss(self, read_rss: ReadRss) -> int:
        """Return the RSS, trimmed where memory may have been freed; raises what the reader raises."""
        rss_bytes = read_rss()
        return self._trimmed(rss_bytes, read_rss) if self._is_due(rss_bytes) else rss_bytes

    def leave_out(self, moved_bytes: int) -> None:
        """Take in that the RSS has moved and nothing was freed: that is no reason for a trim."""
        if self._settled_bytes is not None:
            self._settled_bytes += moved_bytes

    def trimmed_rss(self, read_rss: ReadRss) -> int:
        """Return the RSS, trimmed wherever it stands and whatever that costs.

        A block may have freed memory that the C library did not give back, and the RSS does not move.
        """
        return self._trimmed(read_rss(), read_rss)

    def _trimmed(self, rss_bytes: int, read_rss: ReadRss) -> int:
        if self._malloc_trim is None:
            return rss_bytes
        # The thread's own time: on a busy machine others run meanwhile, which is no cost of the trim.
        start_ns = self._allowance.cpu_ns()
        self._malloc_trim()
        self._settled_bytes = read_rss()
        if self._free_blocks is not None:
            self._least_free_bytes, _ = self._free_blocks()
        cost_ns = self._allowance.cpu_ns() - start_ns
        if cost_ns > CHEAP_NS:
            returned_bytes = max(0, rss_bytes - self._settled_bytes)
            self._allowance.charge(cost_ns - PAID_NS_PER_MIB * returned_bytes // MIB)
        return self._settled_bytes

    def _is_due(self, rss_bytes: int) -> bool:
        """Whether enough may have been freed since the last trim, and time may be spent on another."""
        settled_bytes, ask = self._settled_bytes, self._free_blocks
        if self._malloc_trim is None:
            return False
        # The clock is read last: most windows have nothing to give back, and asking is cheap.
        if settled_bytes is None:
            return self._allowance.is_left
        moved_bytes = abs(rss_bytes - settled_bytes)
        if ask is None:
            return moved_bytes > 0 and self._allowance.is_left
        if self._asking_is_dear and not self._allowance.is_left:
            return False
        return (moved_bytes >= self._worth_bytes or self._has_freed(ask)) and self._allowance.is_left

    def _has_freed(self, ask: Callable[[], tuple[int, int]]) -> bool:
        """Whether more is free than was since the last trim."""
        free_bytes, blocks = ask()
        self._asking_is_dear = blocks > CHEAP_NS // NS_A_BLOCK
        if self._asking_is_dear:
            self._allowance.charge(blocks * NS_A_BLOCK)
        self._least_free_bytes = min(self._least_free_bytes, free_bytes)
        return free_bytes - self._least_free_bytes >= self._worth_bytes


@functools.cache
def process_trimmer() -> Trimmer:
    """Return this process's trimmer."""
    return trimmer_within(process_allowance())


def trimmer_within(allowance: Allowance, *, worth_bytes: int = KEPT_BYTES) -> Trimmer:
    """Return a trimmer of this process's heap that is charged to an allowance."""
    return Trimmer(
        malloc_trim=find_malloc_trim(),
        allowance=allowance,
        free_blocks=find_free_blocks(),
        worth_bytes=worth_bytes,
    )
