"""Giving freed memory back to the kernel before a window, so that the window's own need is seen."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_imu.core.units import MIB

MAX_UNPAID_SHARE = 0.02
"""How much of the time since the first trim may go into trims that brought nothing back."""
GRACE_NS = 50_000_000
"""What such trims may cost in any case, so that the first ones of a run are always tried."""
PAID_NS_PER_MIB = 250_000
"""What a MiB given back may cost: 200 MiB took 20-40 ms, and writing them again takes longer."""
CHEAP_NS = 100_000
"""Under this nobody asks what a trim brought: a tidy heap takes 2-5 µs."""
WATCHED_TRIMS = 100
"""For how many trims after a dear one it is asked, at the price of two more readings each."""


KEPT_BYTES = 64 * 1024
"""What stays at the top of the heap: with nothing left there the next small allocation has to ask the
kernel for it again, which made a window twice as dear."""


def find_malloc_trim() -> Callable[[], object] | None:
    """Return glibc's malloc_trim as a function, or None where there is none (musl, macOS)."""
    try:
        import ctypes

        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError, TypeError):
        return None
    malloc_trim.argtypes = [ctypes.c_size_t]
    return lambda: malloc_trim(KEPT_BYTES)


class Trimmer:
    """Call malloc_trim while that pays.

    On a tidy heap it costs 2-5 µs. Where it gives memory back its time is paid for: without it the
    next window would reuse that memory and measure nothing. On a fragmented heap it may scan for
    nothing, 37 ms at 4 GiB: such unpaid time is kept under 2 % of the run.
    """

    def __init__(
        self,
        *,
        malloc_trim: Callable[[], object] | None,
        rss_bytes: Callable[[], int],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._malloc_trim = malloc_trim
        self._rss_bytes = rss_bytes
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._first_ns: int | None = None
        self._unpaid_ns = 0
        self._watched = 0

    @property
    def available(self) -> bool:
        """Whether this platform can trim at all."""
        return self._malloc_trim is not None

    def trim(self) -> None:
        """Trim now, unless unpaid trims have used up their share; raises what the reader raises."""
        if self._malloc_trim is None:
            return
        watched = self._watched > 0
        before_bytes = self._rss_bytes() if watched else 0
        start_ns = self._clock_ns()
        if self._first_ns is None:
            self._first_ns = start_ns
        if self._unpaid_ns > GRACE_NS + MAX_UNPAID_SHARE * (start_ns - self._first_ns):
            return
        # The thread's own time: on a busy machine others run meanwhile, which is no cost of the trim.
        begin_ns = self._cpu_ns()
        self._malloc_trim()
        cost_ns = self._cpu_ns() - begin_ns
        if watched:
            self._watched -= 1
            returned_bytes = max(0, before_bytes - self._rss_bytes())
            self._unpaid_ns += max(0, cost_ns - int(PAID_NS_PER_MIB * returned_bytes / MIB))
        if cost_ns > CHEAP_NS:
            self._watched = WATCHED_TRIMS
