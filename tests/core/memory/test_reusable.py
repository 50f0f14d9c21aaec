"""What the allocators hold free: read from their own accounts, asked for only while it pays."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from pytest_imu.core.memory.allowance import MAX_SHARE, Allowance
from pytest_imu.core.memory.reusable import (
    ANSWER_HOLDS,
    ReusableGauge,
    free_bytes,
    free_in_pymalloc,
    likely_reused,
    parse_malloc_stats,
)
from pytest_imu.core.units import MIB

needs_pymalloc = pytest.mark.skipif(
    sys.platform == "win32" or sys.implementation.name != "cpython",
    reason="needs_pymalloc: only CPython on Unix tells what its allocator holds",
)

# Recorded from `sys._debugmallocstats()` after 297,000 of 300,000 objects were freed; the tables of
# size classes and of free lists are shortened.
PYTHON_311 = b"""\
Small block threshold = 512, in 32 size classes.

class   size   num pools   blocks in use  avail blocks
-----   ----   ---------   -------------  ------------
    0     16         294            3018        297156
    1     32           1             385           125
# arenas allocated total           =                    6
# arenas reclaimed                 =                    0
# arenas highwater mark            =                    6
# arenas allocated current         =                    6
6 arenas * 1048576 bytes/arena     =            6,291,456

# bytes in allocated blocks        =              708,832
# bytes in available blocks        =            5,102,272
24 unused pools * 16384 bytes      =              393,216
# bytes lost to pool headers       =               17,088
# bytes lost to quantization       =                4,512
# bytes lost to arena alignment    =               65,536
Total                              =            6,291,456
           4 free PyFloatObjects * 24 bytes each =                   96
  12 free 2-sized PyTupleObjects * 40 bytes each =                  480
"""

PYTHON_312 = b"""\
Small block threshold = 512, in 32 size classes.

class   size   num pools   blocks in use  avail blocks
-----   ----   ---------   -------------  ------------
    0     16         294            3025        297149
    1     32           1             433            77
# arenas allocated total           =                    6
# arenas reclaimed                 =                    0
# arenas highwater mark            =                    6
# arenas allocated current         =                    6
6 arenas * 1048576 bytes/arena     =            6,291,456

# bytes in allocated blocks        =              717,104
# bytes in available blocks        =            5,109,728
21 unused pools * 16384 bytes      =              344,064
# bytes lost to pool headers       =               17,136
# bytes lost to quantization       =                5,120
# bytes lost to arena alignment    =               98,304
Total                              =            6,291,456
           4 free PyFloatObjects * 24 bytes each =                   96
   6 free 2-sized PyTupleObjects * 40 bytes each =                  240
"""

PYTHON_313 = b"""\
Small block threshold = 512, in 32 size classes.

class   size   num pools   blocks in use  avail blocks
-----   ----   ---------   -------------  ------------
    0     16         294            3024        297150
    1     32           1             481            29
# arenas allocated total           =                    6
# arenas reclaimed                 =                    0
# arenas highwater mark            =                    6
# arenas allocated current         =                    6
6 arenas * 1048576 bytes/arena     =            6,291,456

# bytes in allocated blocks        =            1,036,240
# bytes in available blocks        =            5,002,304
9 unused pools * 16384 bytes       =              147,456
# bytes lost to pool headers       =               17,760
# bytes lost to quantization       =                5,776
# bytes lost to arena alignment    =               81,920
Total                              =            6,291,456
           4 free PyFloatObjects * 24 bytes each =                   96
   6 free 2-sized PyTupleObjects * 40 bytes each =                  240
"""

# Recorded from Python 3.14 with PYTHONMALLOC=mimalloc, which free-threaded builds always use.
MIMALLOC = b"""\
Small block threshold = 8192, in 73 size classes.
Medium block threshold = 65536
Large object max size = 16777216
    Allocated Blocks: 16173
    Allocated Bytes: 2229376
    Allocated Bytes w/ Overhead: 2229376
    Bytes Reserved: 5509104
    Bytes Committed: 2582144

            6 free PyDictObjects * 48 bytes each =                  288
"""
WITHOUT_PYMALLOC = b"""\
            8 free PyDictObjects * 48 bytes each =                  384
           4 free PyFloatObjects * 24 bytes each =                   96
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PYTHON_311, 5_102_272 + 393_216),
        (PYTHON_312, 5_109_728 + 344_064),
        (PYTHON_313, 5_002_304 + 147_456),
        (WITHOUT_PYMALLOC, None),  # PYTHONMALLOC=malloc
        (MIMALLOC, None),
        (b"", None),
        (PYTHON_313.replace(b"unused pools", b"spare pools"), None),
        (PYTHON_313.replace(b"available blocks  ", b"free blocks"), None),
    ],
    ids=["3.11", "3.12", "3.13", "no pymalloc", "mimalloc", "empty", "no pools", "no blocks"],
)
def test_statistics(text: bytes, expected: int | None) -> None:
    """Free blocks and unused pools add up; what does not have both tells nothing."""
    assert expected == parse_malloc_stats(text)


@needs_pymalloc
def test_freed_objects_are_found(run_python: Callable[..., int]) -> None:
    """Of many small objects all but a few are freed: at least their bytes are held free."""
    script = """
from pytest_imu.core.memory.reusable import free_in_pymalloc
objects = [object() for _ in range(300_000)]
kept = objects[::100]
del objects
print(free_in_pymalloc())
"""
    assert 297_000 * 16 <= run_python(script) <= 297_000 * 16 + 2 * MIB


def test_other_allocators_tell_nothing(
    run_python: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the small-object allocator nothing is known, and that is not 0."""
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    script = """
import json
from pytest_imu.core.memory.reusable import free_in_pymalloc
print(json.dumps(free_in_pymalloc()))
"""
    assert None is run_python(script)


@pytest.mark.parametrize(
    ("in_pymalloc", "in_thread_heaps", "expected"),
    [
        (5, 7, 12),
        (5, 0, 5),
        (3, 0, 3),
        (1, 1, 0),  # 2 MiB are free in every process
        (5, None, None),  # a C library whose account is of no known form
        (None, 7, None),  # PYTHONMALLOC=malloc
        (None, None, None),
    ],
)
def test_parts_add_up(
    in_pymalloc: int | None, in_thread_heaps: int | None, expected: int | None
) -> None:
    """What glibc keeps for threads comes on top; where one part is unknown, so is the sum."""

    def size_bytes(size_mib: int | None) -> int | None:
        return None if size_mib is None else size_mib * MIB

    assert size_bytes(expected) == free_bytes(
        in_pymalloc=lambda: size_bytes(in_pymalloc),
        in_thread_heaps=lambda: size_bytes(in_thread_heaps),
    )


@needs_pymalloc
@pytest.mark.needs_malloc_trim
def test_memory_of_threads_is_told(run_python: Callable[..., dict[str, int]]) -> None:
    """What one thread has freed is told to the next window, which may use it without any growth."""
    script = """
import json
from concurrent.futures import ThreadPoolExecutor
from pytest_imu import measure

len(b"x" * (31 << 20))  # freed once: from now on glibc keeps twice as much at the top of each heap
pool = ThreadPoolExecutor(1)
for name in ("first", "second"):
    with measure() as m:
        pool.submit(lambda: [b"x" * length for length in [65_000] * 800]).result()
    told = m.measurement.reusable_bytes
print(json.dumps({"peak": m.peak_bytes, "told": told}))
"""
    second = run_python(script)

    needed = 800 * 65_000
    assert second["peak"] < needed / 2  # or there was nothing to tell
    assert needed <= second["peak"] + second["told"] + MIB // 2  # peaks are exact to half a MiB


@needs_pymalloc
def test_stderr_belongs_to_its_writers(capfd: pytest.CaptureFixture[str]) -> None:
    """All that another thread writes to stderr meanwhile arrives there, and nothing else does."""
    asking = threading.Event()

    def write() -> None:
        asking.wait()
        for _ in range(2_000):
            os.write(2, b"x\n")

    writer = threading.Thread(target=write)
    writer.start()
    asking.set()
    while writer.is_alive():
        free_in_pymalloc()
    writer.join()
    assert ("", "x\n" * 2_000) == capfd.readouterr()


class Scripted:
    """An allocator and two clocks of one's own: the world's and the thread's."""

    def __init__(self, *, ask_costs_ns: int = 0, others_take_ns: int = 0) -> None:
        self.now_ns = 0
        self._used_ns = 0
        self._others_take_ns = others_take_ns
        self.asked = 0
        self.free_mib: float | None = 7
        self._ask_costs_ns = ask_costs_ns
        allowance = Allowance(clock_ns=lambda: self.now_ns, cpu_ns=lambda: self._used_ns)
        self.gauge = ReusableGauge(
            free_bytes=self._ask, clock_ns=lambda: self.now_ns, allowance=allowance
        )

    def _ask(self) -> int | None:
        self.asked += 1
        self.now_ns += self._ask_costs_ns + self._others_take_ns
        self._used_ns += self._ask_costs_ns
        return None if self.free_mib is None else round(self.free_mib * MIB)

    def read_mib(self, rss_mib: float) -> float | None:
        """Return the answer at this RSS, in MiB."""
        answer_bytes = self.gauge.read(round(rss_mib * MIB))
        return None if answer_bytes is None else answer_bytes / MIB


def test_lowest_rss_is_asked_about_once() -> None:
    """While the process is hardly larger than it ever was, what it had free then is said again."""
    process = Scripted()
    assert [7, 7, 7] == [process.read_mib(rss_mib) for rss_mib in (100, 101, 99.5)]
    assert 1 == process.asked
    process.free_mib = 0
    assert [0, 0] == [process.read_mib(rss_mib) for rss_mib in (90, 91)]
    assert 2 == process.asked


def test_growth_is_asked_about() -> None:
    """Where it is more than a MiB above the lowest seen, every reading asks."""
    process = Scripted()
    process.free_mib = 0
    process.read_mib(100)
    process.free_mib = 7
    answers = [process.read_mib(rss_mib) for rss_mib in (101, 101.1, 300, 100, 101.1)]
    assert ([0, 7, 7, 0, 7], 4) == (answers, process.asked)


def test_answer_holds_while_the_rss_stays() -> None:
    """For many times its cost an answer is repeated, unless the RSS has moved by over a MiB."""
    process = Scripted(ask_costs_ns=1_000)
    process.read_mib(100)
    start_ns, holds_ns = process.now_ns, 1_000 * ANSWER_HOLDS
    for rss_mib, after_ns, asked in (
        (300, 0, 2),
        (301, holds_ns + 999, 2),
        (299, holds_ns + 999, 2),
        (302, holds_ns + 999, 3),
        (302, 2 * holds_ns + 1_998, 3),
        (302, 2 * holds_ns + 1_999, 4),
    ):
        process.now_ns = max(process.now_ns, start_ns + after_ns)
        assert 7 == process.read_mib(rss_mib)
        assert asked == process.asked, (rss_mib, after_ns)


def test_dear_asking_keeps_to_its_share() -> None:
    """After the grace, asking takes no more than its share of the time, and None says nobody asked."""
    process = Scripted(ask_costs_ns=30_000_000)
    assert [7, 7, None] == [process.read_mib(rss_mib) for rss_mib in (100, 300, 400)]
    process.now_ns = round((60_000_000 - 50_000_000) / MAX_SHARE) - 1
    assert None is process.read_mib(400)
    process.now_ns += 1
    assert 7 == process.read_mib(400)
    assert 3 == process.asked


def test_busy_machine_costs_nothing() -> None:
    """What other processes ran meanwhile is in the clock's time, and not charged to the asking."""
    process = Scripted(others_take_ns=100_000_000)
    process.read_mib(100)
    assert [7] * 9 == [process.read_mib(300) for _ in range(9)]


def test_cheap_asking_is_always_allowed() -> None:
    """Asking that stays inside the grace is never refused, however short the time."""
    process = Scripted(ask_costs_ns=1_000)
    answers = [process.read_mib(100 + 2 * number) for number in range(1_000)]
    assert ([7] * 1_000, 1_000) == (answers, process.asked)


def test_verdict_is_worth_an_answer() -> None:
    """Asked anew, it answers what holds now, whatever was said before and however dear it is."""
    process = Scripted(ask_costs_ns=60_000_000)
    answers = []
    for process.free_mib in (0, 7, None, 3):
        answer_bytes = process.gauge.read(100 * MIB, anew=True)
        answers.append(None if answer_bytes is None else answer_bytes / MIB)
    assert [0, 7, None, 3] == answers


@pytest.mark.parametrize(
    ("reusable_mib", "duration_ns", "peak_mib", "expected_mib"),
    [
        (None, 10**9, 0, 0),
        (0, 10**9, 0, 0),
        (120, 10**9, 0, 120),
        (120, 0, 0, 0),
        (120, 10**9 // 512, 0, 32),  # 16 GiB a second
        (120, 10**9, 1200, 120),
        (119, 10**9, 1200, 0),
        (5, 10**9, 3, 5),
        (4, 10**9, 3, 0),
        (120, 10**9, None, 0),
    ],
)
def test_what_was_likely_reused(
    reusable_mib: int | None, duration_ns: int, peak_mib: int | None, expected_mib: float
) -> None:
    """No more than can be filled in the time, and only a tenth of the peak and 5 MiB."""
    reusable_bytes = None if reusable_mib is None else reusable_mib * MIB
    peak_bytes = None if peak_mib is None else peak_mib * MIB
    assert expected_mib == likely_reused(reusable_bytes, duration_ns, peak_bytes) / MIB
