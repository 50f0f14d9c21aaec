"""What the process's allocators hold free: memory that the next block can use without any growth.

Python's own allocator holds small objects, and glibc the tops of the heaps of threads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from pytest_imu.core.memory.allowance import Allowance, process_allowance
from pytest_imu.core.memory.memstream import written_by
from pytest_imu.core.model import Measurement
from pytest_imu.core.system import System
from pytest_imu.core.units import MIB, NANOSECONDS_PER_SECOND

ALWAYS_FREE_BYTES = 2 * MIB
"""What Python's allocator has free in every process, also in one that has run nothing yet."""
NOTEWORTHY_BYTES = MIB
"""How much is worth a word, and how far the RSS must stand above the lowest seen before it is asked
again: asking costs 0.1-3 ms."""
SAID_BYTES, SAID_SHARE = 5 * MIB, 0.1
"""A row says what it may have reused where that is at least so much, and such a share of its peak."""
ANSWER_HOLDS = 400
"""For how many times its cost an answer is good while the RSS stays where it was: many short tests then
take an eighth of the share at the most, and leave the rest for those that move the RSS."""
REUSE_BYTES_PER_SECOND = 16 * 2**30
"""No faster is memory filled that is resident already: a block of 0.1 ms has not reused what is worth a
word. Fresh memory, at 4 GiB a second, is slower: numpy filled 46 MiB again in 7 ms."""

_FREE_BLOCKS = re.compile(rb"bytes in available blocks\s*=\s*([\d,]+)")
_FREE_POOLS = re.compile(rb"unused pools \* \d+ bytes\s*=\s*([\d,]+)")

_HEAP = re.compile(rb'<heap nr="(\d+)">(.*?)</heap>', re.DOTALL)
_LISTED = re.compile(rb'<(?:size|unsorted) from="\d+" to="\d+" total="(\d+)"')
_TOTAL = re.compile(rb'<total type="(fast|rest)" count="\d+" size="(\d+)"')


def parse_malloc_info(text: bytes) -> int | None:
    """Return the bytes at the tops of all heaps but the first in what `malloc_info()` writes.

    None where the text is not of a known form. A heap's free bytes are listed by their sizes, except the
    top: it is what the totals have more.
    """
    heaps: list[tuple[bytes, bytes]] = _HEAP.findall(text)
    if not heaps or len(heaps) != text.count(b"<heap "):
        return None
    tops = [_top_bytes(heap) for number, heap in heaps if int(number) > 0]
    known = [top_bytes for top_bytes in tops if top_bytes is not None and top_bytes >= 0]
    return sum(known) if len(known) == len(tops) else None


def _top_bytes(heap: bytes) -> int | None:
    # Up to glibc 2.42 small blocks that were just freed have a total of their own: "fast".
    totals = dict(_TOTAL.findall(heap))
    if b"rest" not in totals or len(totals) != heap.count(b"<total "):
        return None
    return sum(map(int, totals.values())) - sum(map(int, _LISTED.findall(heap)))


def free_in_thread_heaps(
    *, account: Callable[[], bytes | None] = lambda: written_by("malloc_info", 0)
) -> int | None:
    """Return how much glibc holds free at the tops of the heaps of threads, in bytes.

    None where what it writes of them is of no known form; 0 where the C library has no `malloc_info()`,
    and so no such heaps (musl, macOS, Windows). What a thread has asked for, freed and never touched is
    in it too, though it takes no memory. It costs 20-100 µs on a tidy heap, and 8 ms with half a million
    free blocks.
    """
    text = account()
    return 0 if text is None else parse_malloc_info(text)


def parse_malloc_stats(text: bytes) -> int | None:
    """Return the free bytes in what `sys._debugmallocstats()` prints; None where it says nothing."""
    found = [pattern.search(text) for pattern in (_FREE_BLOCKS, _FREE_POOLS)]
    if None in found:
        return None
    return sum(int(match[1].replace(b",", b"")) for match in found if match is not None)


def free_in_pymalloc() -> int | None:
    """Return how much CPython's small-object allocator holds free, in bytes; None where unknown.

    It is what `sys._debugmallocstats()` prints, but that goes to the process's stderr alone. The
    function behind it, which CPython exports for tools like this one, writes to any stream.
    """
    text = written_by("_PyObject_DebugMallocStats")
    return None if text is None else parse_malloc_stats(text)


def other_allocator() -> str | None:
    """Return what stands in for Python's allocator or the C library's, "mimalloc" say; usually None.

    It gives nothing back when it is trimmed, and does not tell what it holds free.
    """
    if b"Bytes Committed" in (written_by("_PyObject_DebugMallocStats") or b""):
        return "mimalloc"  # PYTHONMALLOC=mimalloc, and every free-threaded build
    return preloaded_allocator()


@functools.cache  # it cannot change while the process lives
def preloaded_allocator() -> str | None:
    """Return the library whose malloc comes before glibc's, by its file's name; None where none does."""
    try:
        import ctypes

        found, own = (
            ctypes.cast(library.malloc, ctypes.c_void_p).value
            for library in (ctypes.CDLL(None), ctypes.CDLL("libc.so.6"))
        )
        if found == own:
            return None
        names = (ctypes.c_void_p * 4)()  # Dl_info begins with the file's name
        ctypes.CDLL(None).dladdr(ctypes.c_void_p(found), names)
        name = ctypes.string_at(names[0] or 0).decode(errors="replace")
    except (ImportError, OSError, AttributeError, TypeError, ValueError):
        return None  # no glibc
    return re.split(r"[-.]", name.rpartition("/")[2].removeprefix("lib"))[0] or "another malloc"


@functools.cache
def why_unknown() -> str:
    """Return why it is not known what was reused, as the end of a sentence about a budget."""
    allocator = other_allocator()
    if allocator is None:
        return "the amount of reused memory is not known"
    return f"it may have been met only by reusing memory that {allocator} kept"


def free_bytes(
    *,
    in_pymalloc: Callable[[], int | None] = free_in_pymalloc,
    in_thread_heaps: Callable[[], int | None] = free_in_thread_heaps,
) -> int | None:
    """Return how many bytes the next block can use without any growth; None where that is unknown.

    It is 0 where there is little more than every process has. Where one of the two tells nothing, the
    sum is unknown, whatever the other holds.
    """
    if preloaded_allocator() is not None:
        return None
    if (in_blocks := in_pymalloc()) is None or (in_heaps := in_thread_heaps()) is None:
        return None
    all_bytes = in_blocks + in_heaps
    return all_bytes if all_bytes >= ALWAYS_FREE_BYTES + NOTEWORTHY_BYTES else 0


class ReusableGauge:
    """Asks what is reusable as a window opens, where that may matter and while it costs little."""

    def __init__(
        self,
        *,
        allowance: Allowance,
        free_bytes: Callable[[], int | None] = free_bytes,
        clock_ns: Callable[[], int] = System.perf_counter_ns,
    ) -> None:
        self._allowance = allowance
        self._free_bytes = free_bytes
        self._clock_ns = clock_ns
        self._lowest: _Answer | None = None
        self._answer: _Answer | None = None
        self.asked = 0
        """How often the allocators were asked."""

    def read(self, rss_bytes: int, *, anew: bool = False) -> int | None:
        """Return the reusable bytes of a process whose RSS is *rss_bytes*.

        0 where that is next to nothing, None where it is not known. It is asked at the first window,
        and again where the RSS is far from the lowest seen, for what was freed there has gone since.
        With *anew* it is asked now, whatever was answered before and whatever it costs.
        """
        if anew:
            return self._ask(rss_bytes).reusable_bytes
        lowest = self._lowest
        if lowest is None or rss_bytes < lowest.rss_bytes - NOTEWORTHY_BYTES:
            lowest = self._lowest = self._ask(rss_bytes) if self._allowance.is_left else None
        if lowest is None or rss_bytes - lowest.rss_bytes <= NOTEWORTHY_BYTES:
            return None if lowest is None else lowest.reusable_bytes
        if self._answer is None or not self._answer.holds(rss_bytes, self._clock_ns()):
            self._answer = self._ask(rss_bytes) if self._allowance.is_left else None
        return None if self._answer is None else self._answer.reusable_bytes

    def _ask(self, rss_bytes: int) -> _Answer:
        self.asked += 1
        cpu_ns = self._allowance.cpu_ns
        begin_ns = cpu_ns()
        free_bytes = self._free_bytes()
        cost_ns = cpu_ns() - begin_ns
        self._allowance.charge(cost_ns)
        return _Answer(free_bytes, rss_bytes, self._clock_ns() + cost_ns * ANSWER_HOLDS)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was free at one time, and how long that may be said again."""

    reusable_bytes: int | None
    rss_bytes: int
    until_ns: int

    def holds(self, rss_bytes: int, now_ns: int) -> bool:
        return now_ns < self.until_ns and abs(rss_bytes - self.rss_bytes) <= NOTEWORTHY_BYTES


@functools.cache
def process_gauge() -> ReusableGauge:
    """Return this process's gauge."""
    return ReusableGauge(allowance=process_allowance())


def likely_reused(reusable_bytes: int | None, duration_ns: int, peak_bytes: int | None) -> int:
    """Return the bytes of it that a block has likely used at the most; 0 where that is worth no word.

    That is no more than a block of this duration can fill, and it tells something only where it is a
    tenth of the peak. A budget is another matter: what is resident already can be written to faster, by
    several threads too, so it is only called kept if it is with all of the reusable part.
    """
    filled_bytes = duration_ns * REUSE_BYTES_PER_SECOND // NANOSECONDS_PER_SECOND
    reused_bytes = min(reusable_bytes or 0, filled_bytes)
    if peak_bytes is None or reused_bytes < max(SAID_BYTES, peak_bytes * SAID_SHARE):
        return 0
    return reused_bytes


def reused_in(block: Measurement, time_ns: int | None = None) -> int:
    """Return what a measured block has likely reused: in all the time that it took, or in *time_ns*."""
    duration_ns = block.duration_ns if time_ns is None else time_ns
    return likely_reused(block.reusable_bytes, duration_ns, block.peak_bytes)
