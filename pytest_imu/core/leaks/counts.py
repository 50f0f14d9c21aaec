"""Counts what stands in this process, exactly: Python's blocks, C's bytes, descriptors and threads."""

from __future__ import annotations

import functools
import re
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pytest_imu.core.leaks.growth import Counts, Growth
from pytest_imu.core.memory.glibc import find_given_out
from pytest_imu.core.memory.memstream import written_by
from pytest_imu.core.memory.reusable import preloaded_allocator
from pytest_imu.core.system import System

SURE_CALLS = 8
"""Fewer prove nothing: a cache or a list may take its next step in any of them."""
YOUNG = 1
"""The generation up to which garbage is collected first: what is older has survived that before."""
UNKNOWN = -1
DESCRIPTORS = "/dev/fd" if sys.platform == "darwin" else "/proc/self/fd"

_CLASSES = re.compile(rb"^ *\d+ +(\d+) +\d+ +(\d+) +\d+ *$", re.MULTILINE)
_count_threads = threading.active_count  # bound here: a test may replace it
_count_blocks = getattr(sys, "getallocatedblocks", lambda: UNKNOWN)
_forget_lookups = getattr(sys, "_clear_type_cache", lambda: None)
"""Python keeps the names of the attributes that were looked up last: of new ones, up to 4,096."""

FIELDS = range(len(Counts._fields))
WIDTH = len(FIELDS)
NOTHING = nullcontext()
"""One for all counts: a new one would be in each, and the first objects of a class shrink one by one."""
Read = Callable[[], int]


def read_block_bytes() -> int:
    """Return the bytes of all small objects that stand, as pymalloc's own account has them."""
    text = written_by("_PyObject_DebugMallocStats")
    if text is None or b"Bytes Committed" in text:  # there is none, or it is mimalloc's
        return UNKNOWN
    return sum(int(size) * int(blocks) for size, blocks in _CLASSES.findall(text))


@functools.cache
def c_bytes_reader() -> Read | None:
    """Return what tells how many bytes C code has asked for and not freed; None where nothing does."""
    if preloaded_allocator() is not None:
        return None
    if (given_out := find_given_out()) is not None:
        return given_out
    try:
        import psutil

        heap_info: Any = psutil.heap_info  # psutil 7.2; Any: older ones do not know it
        heap_info()
    except (ImportError, AttributeError, OSError, RuntimeError, NotImplementedError):
        return None

    def read() -> int:
        heap = heap_info()
        return int(heap.heap_used + heap.mmap_used)

    return read


def read_descriptors() -> int:
    """Return how many descriptors are open."""
    try:
        return len(System.listdir(DESCRIPTORS)) - 1  # the one that lists them
    except OSError:
        return UNKNOWN


def clear_free_lists() -> bool:
    """Let Python free what it keeps for new tuples, floats and the like; return whether it did.

    Only a full collection does that. It takes no time while all objects stand aside; where a test has
    put some there, nothing is done, since they would come back.
    """
    if System.get_freeze_count() > System.ALWAYS_FROZEN:
        return False
    System.freeze()
    try:
        System.collect()
    finally:  # Ctrl-C may come
        System.unfreeze()
    return True


class Tally:
    """Counts after each call, into numbers that are there already: it keeps nothing that is new."""

    def __init__(
        self,
        calls: int,
        *,
        block_bytes: Read = read_block_bytes,
        c_bytes: Read | None = None,
        descriptors: Read = read_descriptors,
    ) -> None:
        """Make room for the counts before the first and after each of *calls*."""
        self._block_bytes = block_bytes
        self._c_bytes = c_bytes or c_bytes_reader() or (lambda: UNKNOWN)
        self._descriptors = descriptors
        self._rows = array("q", bytes(8 * WIDTH * (calls + 1)))
        self._next = 0

    @property
    def calls(self) -> int:
        """After how many calls was counted."""
        return self._next - 1

    def begin(self) -> None:
        """Forget all counts, and take the first."""
        self._next = 0
        self.count()

    def count(self) -> None:
        """Collect garbage, and count what stands."""
        System.collect(YOUNG)
        System.collect()  # what finalizers have dropped just now goes as well
        self._read(self._next)
        self._next += 1

    def has_grown(self) -> bool:
        """Return whether more of anything may stand than at the first count; count it where it does not.

        A full collection takes as long as the process is large. This collects what is young: older
        garbage could only add to what stands.
        """
        System.collect(YOUNG)
        if not clear_free_lists():
            return True
        self._read(self._next)
        if self._is_over_first(self._next):
            return True
        self._next += 1
        return False

    def _read(self, row: int) -> None:
        _forget_lookups()
        rows, at = self._rows, row * WIDTH
        rows[at + 3], rows[at + 4] = self._descriptors(), _count_threads()
        rows[at + 1] = self._block_bytes()
        rows[at + 2] = self._c_bytes()
        rows[at] = _count_blocks()

    def _is_over_first(self, row: int) -> bool:
        rows, at = self._rows, row * WIDTH
        for field in FIELDS:  # noqa: SIM110 - any() would make a generator, which counts
            if rows[at + field] > rows[field]:
                return True
        return False

    def growth(self, warmup: int) -> Growth:
        """Return the growth between the counts so far, which began after so many calls."""
        starts = range(0, self._next * WIDTH, WIDTH)
        counts = [Counts(*self._rows[at : at + WIDTH]) for at in starts]
        return Growth.of(counts, warmup=warmup)


@functools.cache
def warm_up() -> None:
    """Count a few times for nothing, once a process: the first counts fill caches of their own."""
    tally = Tally(SURE_CALLS)
    for _ in range(SURE_CALLS):
        tally.count()


def growth_of(
    call: Callable[[], object],
    *,
    calls: int,
    warmup: int,
    limit_kib: float,
    around: Callable[[], AbstractContextManager[object]] = lambda: NOTHING,
) -> Growth:
    """Return what so many calls leave; each count is taken *around*, after *warmup* calls by the caller.

    If only a later call than the first grows, those up to it are warm-ups too: what they dropped may not
    be collected. If not each call grows, or they are few, as many more are made, 16 in all at least.
    """
    warm_up()
    more = max(calls, 2 * SURE_CALLS - calls)
    tally = Tally(calls + more)
    # They are made here, or they would be growth themselves.
    first, rest, anew, further = map(iter, (range(calls), range(1, calls), range(calls), range(more)))

    def take(count: Callable[[], object]) -> object:
        with around():
            return count()

    def count_each(numbers: Iterator[int]) -> None:
        for _ in numbers:
            call()
            take(tally.count)

    take(tally.begin)
    for _ in first:
        call()
        if take(tally.has_grown):
            break
    else:
        return tally.growth(warmup)
    if tally.calls:
        warmup += tally.calls + 1
        take(tally.begin)
        count_each(anew)
    else:
        take(tally.count)
        count_each(rest)
    # The first result is not kept: it would be growth itself.
    grew = tally.growth(warmup).grew(limit_kib)
    if 0 < grew < max(calls, SURE_CALLS):
        count_each(further)
    return tally.growth(warmup)
